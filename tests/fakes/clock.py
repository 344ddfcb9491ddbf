"""Time that passes only when everybody waits for it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

_SETTLE = 100
"""Turns of the event loop in which everything that can still happen now has happened."""


class FakeClock:
    """A clock that jumps to the next moment somebody waits for; `at` scripts what happens on the way."""

    def __init__(self) -> None:
        self._now = 0.0
        self._steps = 0
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []

    def now(self) -> float:
        return self._now

    def at(self, moment: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (moment, next(self._order), act))

    async def sleep(self, seconds: float) -> None:
        awake = asyncio.Event()
        self.at(self._now + seconds, awake.set)
        while not awake.is_set():
            steps = self._steps
            for _ in range(_SETTLE):
                await asyncio.sleep(0)
            if not awake.is_set() and steps == self._steps:  # another sleeper's step must settle first
                self._advance()

    def _advance(self) -> None:
        moment, _, act = heapq.heappop(self._agenda)
        self._now = max(self._now, moment)
        self._steps += 1
        act()

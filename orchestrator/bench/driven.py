"""The engine under measurement: a clock that is moved by hand, and what is taken down of its turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from orchestrator.bench.handover import ENGINE, WITH_DECISION
from orchestrator.core.orders import Happening, Notice
from orchestrator.errors import FailedError, OutcomeUnknownError

_LIMIT = 60.0  # seconds; no guest that answers at all takes so long
_LOST = {Happening.GONE, Happening.QUARANTINED}


class SteppedClock:
    """A clock that stands still until it is moved; who sleeps is woken as by a timer."""

    def __init__(self) -> None:
        self._now = 0.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Return the seconds that it was moved so far."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once it was moved so far."""
        until = self._now + seconds
        while self._now < until:
            await self._moved.wait()

    def step(self, seconds: float) -> None:
        """Move it on."""
        self._now += seconds
        self._moved.set()
        self._moved = asyncio.Event()


class Driven:
    """The engine's hand-overs: two guests, one turn's room, and a clock that is moved to the end of each turn.

    `note` is what the engine tells its notices, and `stopping` is to be called as it begins to stop a guest; `turn` is
    at least a whole turn, in seconds.
    """

    def __init__(self, clock: SteppedClock, turn: float) -> None:
        self._clock = clock
        self._turn = turn
        self._asked = 0.0
        self._began: dict[str, float] = {}
        self._failure: str | None = None
        self._news = asyncio.Event()

    def note(self, notice: Notice) -> None:
        """Take in when a turn began, or that a guest is lost."""
        if notice.what is Happening.TURN_BEGAN:
            self._began[notice.guest] = perf_counter()
        elif notice.what in _LOST:
            self._failure = f"{notice.guest}: {notice.what} while it was being measured: {notice.why}"
        self._news.set()

    def stopping(self) -> None:
        """Note that a guest is being asked to stop."""
        self._asked = perf_counter()

    async def first(self) -> str:
        """Return the guest whose turn is the first, once it has begun."""
        await self._until(lambda: bool(self._began))
        return next(iter(self._began))

    async def hand_over(self, old: str, new: str) -> dict[str, float]:
        """End the turn of `old`, and return how many seconds later `new` runs."""
        self._began.clear()
        start = perf_counter()
        self._clock.step(self._turn)
        await self._until(lambda: new in self._began)
        if old in self._began:
            raise FailedError(f"{old}: got another turn while {new} waited")
        end = self._began[new]
        return {ENGINE: end - self._asked, WITH_DECISION: end - start}

    async def _until(self, done: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                while not done():
                    if self._failure is not None:
                        raise FailedError(self._failure)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise OutcomeUnknownError(f"no guest has confirmed within {_LIMIT:g} s that it runs") from None


class Turns:
    """Keeps the turns that are confirmed, as the engine tells of them, to say how much of the cores' time they were."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[int, int]] = {}
        self._over: list[tuple[int, int, int]] = []

    def note(self, notice: Notice) -> None:
        """Take in that a turn has begun, or is over; at its end its guest is known to stand still."""
        if notice.what is Happening.TURN_BEGAN:
            self._running[notice.guest] = (notice.at, len(notice.cores))
        elif notice.what is Happening.TURN_ENDED:
            began, cores = self._running.pop(notice.guest, (notice.since, len(notice.cores)))
            self._over.append((began, notice.at, cores))

    def used(self, start: int, end: int) -> int:
        """Return the core-nanoseconds of turns between two moments; one that goes on counts until `end`."""
        going_on = ((began, end, cores) for began, cores in self._running.values())
        return sum(
            cores * max(0, min(over, end) - max(began, start)) for began, over, cores in (*self._over, *going_on)
        )

    def begun(self, start: int, end: int) -> int:
        """Return how many turns began between two moments."""
        moments = (*(began for began, _, _ in self._over), *(began for began, _ in self._running.values()))
        return sum(start <= moment < end for moment in moments)

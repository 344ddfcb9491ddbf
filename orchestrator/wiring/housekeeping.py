"""What a daemon does now and then: it looks at its guests, and keeps their threads where they belong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine import Engine

LOOK_EVERY = 1.0
"""Seconds between two looks at the threads and serial logs."""

DRIFT_EVERY = 0.25
"""Seconds between two looks whether threads are where they belong."""


async def look(engine: Engine, tell: Callable[[str], None]) -> None:
    """Look at the guests' threads and logs now and then, and see to threads of our own that are new."""
    from orchestrator.host import realtime

    permitted, told = not realtime.go_before_others(), ""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            engine.look()
            if permitted:
                realtime.go_before_others()
        except Exception as error:
            line = f"looking at the guests failed: {type(error).__name__}: {error}"
            if line != told:
                tell(line)
            told = line


async def keep_in_place(engine: Engine) -> None:
    """Look several times a second whether anybody has moved a guest's threads; once, of those that stand still."""
    rounds = cycle(range(round(1 / DRIFT_EVERY)))
    while True:
        await asyncio.sleep(DRIFT_EVERY)
        engine.keep_in_place(still=next(rounds) == 0)

"""What a daemon does now and then: it looks at its guests, and keeps their threads where they belong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.engine import Engine
    from orchestrator.recorder import Recorder
    from orchestrator.shield_keeper import ShieldKeeper

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


async def keep_in_place(engine: Engine, shield: ShieldKeeper | None = None) -> None:
    """Look several times a second whether anybody has moved a guest's threads; once, of those that stand still.

    Once a second it is seen to, too, that the cpusets of a shield are as they were made: else no thread could go back.
    """
    rounds = cycle(range(round(1 / DRIFT_EVERY)))
    while True:
        await asyncio.sleep(DRIFT_EVERY)
        whole = next(rounds) == 0
        if whole and shield is not None and shield.look():
            _go_back()
        engine.keep_in_place(still=whole)


def shield_keeper(recorder: Recorder, tell: Callable[[str], None]) -> ShieldKeeper | None:
    """Return what keeps the shield, if there is one; what it finds is told, and stands in the journal."""
    from orchestrator.errors import OrchestratorError
    from orchestrator.wiring.shield import keeper

    writing: set[asyncio.Task[None]] = set()

    async def record(body: Mapping[str, Any]) -> None:
        try:
            await recorder.intend("shield put back", body)
        except OrchestratorError as error:
            tell(f"what became of the shield is not in the journal: {error}")

    def found(line: str, body: Mapping[str, Any]) -> None:
        tell(line)
        task = asyncio.create_task(record(body))
        writing.add(task)
        task.add_done_callback(writing.discard)

    return keeper(found)


def _go_back() -> None:
    """Have our own threads on core 0 again: when a cpuset changes the kernel may let them run all over it."""
    from orchestrator.core.pool import SCHEDULER_CORE
    from orchestrator.errors import HostError
    from orchestrator.host import realtime

    with contextlib.suppress(HostError):  # not in there: nobody has moved them, then
        realtime.pin_to(SCHEDULER_CORE)

"""`orchestrator run`: starts guests, looks at them every second, and ends them all when it is time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.engine import Engine, Guest, RunningGuest
from orchestrator.errors import FailedError
from orchestrator.planner import Planner
from orchestrator.ports import Clock

LOOK_EVERY = 1.0
"""Seconds between two looks at the threads and serial logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """When a run ends: after `seconds` from the last start, or when every guest has printed `heartbeats`.

    A guest that has printed them is ended at once, so that the others get the host. With both, the heartbeats are
    the aim and the seconds the limit; a guest that ends short of them ends the run. With neither it ends when the
    guests do.
    """

    seconds: float | None = None
    heartbeats: int | None = None


async def run_in_foreground(
    engine: Engine,
    guests: Sequence[Guest],
    *,
    until: Until,
    clock: Clock,
    interrupted: asyncio.Event,
    on_look: Callable[[], None],
    planner: Planner | None = None,
) -> None:
    """Start the guests, call `on_look` after each look, and end them whatever happens; `planner` is followed meanwhile.

    Raises what a start raised, FailedError if the heartbeats were not reached in time.
    """
    running = asyncio.create_task(engine.run())
    interruption = asyncio.create_task(interrupted.wait())
    starting = asyncio.create_task(engine.start(guests))
    try:
        while not starting.done():
            await _next_look(clock, starting)
            await _look(engine, guests, until, planner)
            on_look()
        await starting
        began = clock.now()
        while not interrupted.is_set() and not _finished(_ours(engine, guests), until, clock.now() - began):
            await _next_look(clock, interruption)
            await _look(engine, guests, until, planner)
            on_look()
    finally:
        interruption.cancel()
        # What is still starting must have started to be stopped.
        await asyncio.gather(starting, interruption, return_exceptions=True)
        await engine.stop_all()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    if until.heartbeats is not None and not interrupted.is_set():
        _require_heartbeats(_ours(engine, guests), until.heartbeats)


def _ours(engine: Engine, guests: Sequence[Guest]) -> list[RunningGuest]:
    """Return those of the guests that have been launched; others that run here are not this run's."""
    return [engine.guests[guest.spec.name] for guest in guests if guest.spec.name in engine.guests]


async def _look(engine: Engine, guests: Sequence[Guest], until: Until, planner: Planner | None) -> None:
    if planner is not None:
        planner.look()
    engine.keep_in_place()
    engine.look()
    if until.heartbeats is not None:
        going_on = [guest for guest in _ours(engine, guests) if guest.ended is None]
        await engine.stop([guest.name for guest in going_on if guest.heartbeats >= until.heartbeats])


async def _next_look(clock: Clock, sooner: asyncio.Task[object]) -> None:
    """Return when it is time to look again, or as soon as a task has ended."""
    pause = asyncio.create_task(clock.sleep(LOOK_EVERY))
    await asyncio.wait({pause, sooner}, return_when=asyncio.FIRST_COMPLETED)
    pause.cancel()


def _finished(guests: Sequence[RunningGuest], until: Until, elapsed: float) -> bool:
    if until.seconds is not None and elapsed >= until.seconds:
        return True
    if until.heartbeats is not None:
        short = [guest for guest in guests if guest.heartbeats < until.heartbeats]
        return not short or any(guest.ended is not None for guest in short)
    return all(guest.ended is not None for guest in guests)


def _require_heartbeats(guests: Sequence[RunningGuest], wanted: int) -> None:
    short = [f"{guest.name} ({guest.heartbeats})" for guest in guests if guest.heartbeats < wanted]
    if short:
        raise FailedError(
            f"fewer than {wanted} heartbeats in time from {', '.join(short)}; `orchestrator logs` shows why"
        )

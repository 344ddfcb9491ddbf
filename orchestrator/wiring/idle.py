"""What the scheduler costs while nothing happens, measured on real guests that stand still; see `bench.idle`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.bench.idle import COUNTS, Idle
from orchestrator.core.model import Architecture
from orchestrator.core.orders import Notice
from orchestrator.core.policy import Policy
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.engine import Engine, Guest
from orchestrator.host import realtime
from orchestrator.host.opening import UserFiles
from orchestrator.host.processes import ProcFs
from orchestrator.service.desk import Desk
from orchestrator.service.events import Events
from orchestrator.service.overview import MARK_EVERY, OverviewDesk
from orchestrator.wiring.definitions import accelerator_for, load_guests, to_run
from orchestrator.wiring.handover import Tell, alone_on, require_pool_or_loan
from orchestrator.wiring.housekeeping import LOOK_EVERY, keep_in_place
from orchestrator.wiring.sent import SentDefinitions
from orchestrator.wiring.site import load_topology
from orchestrator.wiring.stage import collecting_when_idle, going, interruptible
from orchestrator.wiring.starting import DOMAINS

_AT_ONCE = 20
_SETTLING = 3.0  # seconds until what comes with a start has been done


async def measure(
    policy: Policy, *, borrow: bool, tell: Tell, counts: tuple[int, ...] = COUNTS, seconds: float = 10.0
) -> list[Idle]:
    """Measure with so many guests, one number after the other; every guest is ended whatever happens.

    Raises as `handover.measure`.
    """
    topology = load_topology(policy)
    require_pool_or_loan(topology, borrow=borrow)
    async with alone_on(topology, borrow=borrow) as launcher:
        clock = realtime.AlarmClock()

        async def act() -> list[Idle]:
            def note(notice: Notice) -> None:
                desk.note(notice)

            engine = Engine(launcher.topology, policy, launcher, clock, on_notice=note)
            desk = Desk(engine, SentDefinitions(policy, UserFiles((SERVICE_CORE,))), Events(), clock)
            overview = OverviewDesk(desk, engine, ProcFs().memory)
            started: list[Guest] = []
            found = []
            async with going(engine, launcher, started), collecting_when_idle(clock.left):
                for count in counts:
                    for batch in _batches(policy, len(started), count):
                        tell(f"{count} guests start", len(started) / max(1, *counts))
                        started += batch
                        await engine.start(batch)
                    await asyncio.sleep(_SETTLING)
                    engine.look()  # the first one reads all threads of guests that are new
                    tell(f"idle with {count} guests", len(started) / max(1, *counts))
                    found.append(await _measure(engine, overview, count, seconds))
            return found

        return await interruptible(act())


async def _measure(engine: Engine, overview: OverviewDesk, count: int, seconds: float) -> Idle:
    """Do what `serve` does beside its API, and return what that took."""

    async def mark() -> None:
        while True:
            overview.mark()
            await asyncio.sleep(MARK_EVERY)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            engine.look()

    acts = [asyncio.create_task(act) for act in (mark(), look(), keep_in_place(engine))]
    used, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    used, passed = time.process_time() - used, time.monotonic() - began
    for act in acts:
        act.cancel()
    await asyncio.gather(*acts, return_exceptions=True)
    return Idle(guests=count, seconds=passed, cpu=used / passed, memory=ProcFs().memory(os.getpid()))


def _batches(policy: Policy, have: int, want: int) -> Iterator[list[Guest]]:
    """Yield the guests that are still to be started, some at a time; they are launched and do not run."""
    (parsed,) = load_guests([DOMAINS / "heartbeat-i386.toml"])
    choice = {Architecture.I386: accelerator_for(Architecture.I386, policy)}
    for first in range(have, want, _AT_ONCE):
        names = [f"idle-{number}" for number in range(first, min(want, first + _AT_ONCE))]
        made = (to_run([replace(parsed, spec=replace(parsed.spec, name=name))], 1, choice)[0] for name in names)
        yield [replace(guest, staged=True) for guest in made]

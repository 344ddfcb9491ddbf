"""`orchestrator run`, put together: what is started, on what, and what was seen of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.policy import Policy
from orchestrator.errors import RefusedError
from orchestrator.foreground import Until, run_in_foreground
from orchestrator.recorder import Unrecorded
from orchestrator.wiring import emergency
from orchestrator.wiring.definitions import AcceleratorChoice, accelerator_for, load_guests, to_run
from orchestrator.wiring.guests import build_engine, build_launcher, open_hypervisor
from orchestrator.wiring.site import load_topology

if TYPE_CHECKING:
    from orchestrator.core.model import Architecture
    from orchestrator.core.topology import Topology
    from orchestrator.engine import Engine, Guest, RunningGuest
    from orchestrator.launch import Launcher

__all__ = ["Prepared", "RunningGuest", "Until", "View", "prepare", "run"]


@dataclass(slots=True)
class Prepared:
    """Guests ready to be placed, and the host they are for."""

    guests: Sequence[Guest]
    topology: Topology
    policy: Policy
    accelerators: Mapping[Architecture, AcceleratorChoice]


@dataclass(frozen=True, slots=True)
class View:
    """What a run looks like: the guests that were asked for, in their order, and the engine that runs them."""

    engine: Engine
    wanted: Sequence[Guest]


def prepare(paths: Sequence[Path], count: int, policy: Policy) -> Prepared:
    """Read everything and refuse what can be refused before anything is started: files first, then the host."""
    from orchestrator.core.windows import effective
    from orchestrator.engine import require_pool
    from orchestrator.host.calendar import HostCalendar

    parsed = load_guests(paths, effective(policy, HostCalendar().local()).policy.defaults)
    topology = load_topology(policy)
    require_pool(topology)
    choices = {arch: accelerator_for(arch, policy) for arch in sorted({each.spec.architecture for each in parsed})}
    return Prepared(to_run(parsed, count, choices), topology, policy, choices)


async def run(
    prepared: Prepared, connect: str, until: Until, on_look: Callable[[View], None], on_note: Callable[[str], None]
) -> View:
    """Run the guests until it is time, SIGINT or SIGTERM; return the last look. All of them are stopped then.

    Guests that run here already go on, and take turns with these. `on_note` is told what had to be done about them, and
    which windows of the policy have opened and closed meanwhile, and of what the emergency console has done.
    """
    from orchestrator.config import decode_guest
    from orchestrator.host.calendar import HostCalendar
    from orchestrator.host.clock import MonotonicClock
    from orchestrator.planner import Planner

    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    async with open_hypervisor(connect) as hypervisor:
        launcher = build_launcher(prepared.topology, hypervisor, connect, prepared.policy.hypervisor)
        require_not_barred(prepared.guests, launcher)
        engine = build_engine(prepared.policy, launcher)
        heeding = emergency.heeding(engine, launcher, Unrecorded(), on_note)
        await heeding.prepare_adoption()
        for note in await engine.adopt(decode_guest):
            on_note(note)
        view = View(engine, prepared.guests)
        planner = Planner(engine, HostCalendar(), prepared.policy, on_note)
        planner.plan(prepared.policy)  # a window may have opened since the engine was built
        async with emergency.heeded(heeding):
            await run_in_foreground(
                engine,
                prepared.guests,
                until=until,
                clock=MonotonicClock(),
                interrupted=interrupted,
                on_look=lambda: on_look(view),
                planner=planner,
            )
    return view


def require_not_barred(guests: Sequence[Guest], launcher: Launcher) -> None:
    """Raise RefusedError if the emergency console has the host locked down, or an owner banned."""
    for guest in guests:
        why = launcher.barred(guest.owner)
        if why:
            raise RefusedError(f"{guest.spec.name}: not started: {why}")

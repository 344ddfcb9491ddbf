"""`orchestrator bench handover`, put together: real guests, the real engine, and its rivals in the same process.

The process is set up as `serve` is: on the scheduler core, in a real-time class where that is permitted, with garbage
collected between hand-overs. It is the host's one scheduler meanwhile, and no other guest may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import orchestrator
from orchestrator.bench.borrowed import ChangingHypervisor, Host, lend, may_lend
from orchestrator.bench.driven import Driven, SteppedClock, Turns
from orchestrator.bench.handover import BARE, Extent, HandoverReport, Machine, Times, Use, alternate, ratios
from orchestrator.bench.place import cpu_name
from orchestrator.core.arch import TRAITS
from orchestrator.core.durations import Duration
from orchestrator.core.model import Architecture
from orchestrator.core.policy import Policy
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.core.snapshot import unit_groups
from orchestrator.core.topology import Role, Topology
from orchestrator.engine import Engine, Guest, require_pool
from orchestrator.errors import FailedError, HostError, RefusedError
from orchestrator.host import realtime
from orchestrator.host.places import runtime_directory
from orchestrator.host.prerequisites import emulator
from orchestrator.host.writer_lock import WriterLock
from orchestrator.launch import Launcher
from orchestrator.wiring.definitions import accelerator_for, load_guests, to_run
from orchestrator.wiring.guests import EMBED, build_launcher, open_hypervisor
from orchestrator.wiring.site import embedded_root, load_topology
from orchestrator.wiring.stage import WatchedLauncher, collecting_when_idle, going, interruptible

Tell = Callable[[str, float], None]
"""Is told what is being done, and how much of that is done, from 0 to 1."""

_ARCHITECTURE = Architecture.I386  # of the shipped guests the first to run
_DEFINITION = Path(orchestrator.__file__).parents[1] / "domains" / f"heartbeat-{_ARCHITECTURE}.toml"
_NANOSECONDS = 1_000_000_000
_SETTLING = 1.0  # seconds in which the turns of the slice before have ended


@dataclass(frozen=True, slots=True)
class _Bench:
    """What is measured with: the host's launcher, and how guests are made: `guests(name, count)`."""

    borrow: bool
    policy: Policy
    launcher: Launcher
    guests: Callable[[str, int], list[Guest]]
    extent: Extent
    tell: Tell

    def cores(self, topology: Topology) -> tuple[int, ...]:
        """Return the cores that guests have on this topology, by their real numbers."""
        return (SERVICE_CORE,) if self.borrow else tuple(topology.pool)


@contextlib.asynccontextmanager
async def alone_on(topology: Topology, *, borrow: bool) -> AsyncIterator[Launcher]:
    """Be the host's one scheduler, on its core, and give the launcher of guests, on core 1 if that is borrowed.

    Raises RefusedError if another scheduler or any guest runs.
    """
    lock = WriterLock(runtime_directory(os.environ) / "scheduler.lock")
    lock.acquire()
    try:
        realtime.pin_to(SCHEDULER_CORE)
        async with open_hypervisor(EMBED) as hypervisor:
            launcher = build_launcher(topology, hypervisor, EMBED)
            if borrow:
                host = lend(Host(topology, hypervisor, launcher.processes))
                launcher = replace(
                    launcher, topology=host.topology, hypervisor=host.hypervisor, processes=host.processes
                )
            await require_idle(launcher)
            yield launcher
    finally:
        lock.release()


async def measure(policy: Policy, *, borrow: bool, extent: Extent, tell: Tell) -> HandoverReport:
    """Measure hand-overs; every guest is ended whatever happens, also at SIGINT and SIGTERM.

    Guests run in libvirt's embedded driver, whatever the policy says. With `borrow`, core 1 stands in for the pool of
    a host that has no other core for guests. Raises HostError where there is no pool, RefusedError if guests run or
    core 1 is not lent, KeyboardInterrupt if interrupted.
    """
    topology = load_topology(policy)
    require_pool_or_loan(topology, borrow=borrow)
    choice = accelerator_for(_ARCHITECTURE, policy)
    async with alone_on(topology, borrow=borrow) as launcher:
        bench = _Bench(borrow, policy, launcher, heartbeats(policy), extent, tell)
        ways, cores = await interruptible(_measure_ways(bench))
        uses = await interruptible(_measure_uses(bench))
    return HandoverReport(
        machine=_machine(choice.accelerator),
        borrowed_service_core=borrow,
        cores=cores,
        ways=ways,
        ratios=ratios(ways, BARE),
        uses=tuple(uses),
    )


def heartbeats(policy: Policy) -> Callable[[str, int], list[Guest]]:
    """Return what makes so many guests of a name, all alike: they compute, and take turns."""
    parsed = load_guests([_DEFINITION])[0]
    choices = {_ARCHITECTURE: accelerator_for(_ARCHITECTURE, policy)}

    def guests(name: str, count: int) -> list[Guest]:
        return to_run([replace(parsed, spec=replace(parsed.spec, name=name))], count, choices)

    return guests


def _machine(accelerator: str) -> Machine:
    from orchestrator.bench.rivals import libvirt_version

    return Machine(
        cpu=cpu_name(),
        python=platform.python_version(),
        qemu=emulator(_ARCHITECTURE, TRAITS[_ARCHITECTURE].emulator, "").found,
        libvirt=libvirt_version(),
        accelerator=accelerator,
        realtime=not realtime.go_before_others(),
    )


def require_pool_or_loan(topology: Topology, *, borrow: bool) -> None:
    """Raise HostError where guests have no core, unless core 1 is to stand in."""
    if borrow:
        return
    if not topology.pool and may_lend(topology):
        raise HostError(
            "this host has no pool core: guests need cores beside 0 (scheduler) and 1 (service); "
            "--borrow-service-core measures on core 1, `orchestrator lab run -- COMMAND` gives you a host with six"
        )
    require_pool(topology)


async def require_idle(launcher: Launcher) -> None:
    """Refuse where guests are: they would be measured with, and their cores might be used. Who has ended is none."""
    known = await launcher.hypervisor.domains()
    there = [domain.name for domain in known if launcher.processes.find(domain.uuid) is not None]
    if there:
        raise RefusedError(
            f"hand-overs are measured where no other guest is: {', '.join(there)}; `orchestrator stop --all` ends them"
        )


# Hand-overs, three ways.


async def _measure_ways(bench: _Bench) -> tuple[dict[str, Times], tuple[int, ...]]:
    """Hand one unit of the pool from guest to guest and back; return what that took, and the unit's cores."""
    from orchestrator.bench.rivals import BareLoop, LibvirtLoop, with_spare_monitor

    policy, launcher, extent = bench.policy, bench.launcher, bench.extent
    topology = _one_unit(launcher.topology, policy)
    clock = SteppedClock()
    rotation = policy.rotation
    driven = Driven(clock, 0.001 + (rotation.slice + rotation.handover) / _NANOSECONDS)
    guests = bench.guests("handover", 2)
    spare = {guest.spec.name: f"{launcher.files.directory(guest.spec.name)}/spare.sock" for guest in guests}
    launcher = WatchedLauncher(
        topology,
        ChangingHypervisor(launcher.hypervisor, lambda xml: with_spare_monitor(xml, spare)),
        launcher.processes,
        launcher.monitors,
        launcher.files,
        launcher.payloads,
        launcher.back_ends,
        on_suspend=driven.stopping,
    )
    engine = Engine(topology, policy, launcher, clock, on_notice=driven.note)
    bench.tell("two guests start", 0)
    async with (
        going(engine, launcher, guests),
        collecting_when_idle(lambda: -1.0),
    ):  # nothing but hand-overs is ever due
        uuids = {guest.spec.name: guest.uuid(launcher.files.directory(guest.spec.name)) for guest in guests}
        first = await driven.first()
        (second,) = uuids.keys() - {first}
        with (
            contextlib.closing(BareLoop(spare)) as bare,
            contextlib.closing(LibvirtLoop.open(f"qemu:///embed?root={embedded_root()}", uuids)) as libvirt,
        ):
            times = await alternate(
                (driven.hand_over, bare.hand_over, libvirt.hand_over),
                (first, second),
                extent,
                lambda done: bench.tell("hand-overs", done / extent.rounds),
            )
    return times, bench.cores(topology)


def _one_unit(topology: Topology, policy: Policy) -> Topology:
    """Return the topology with only as many pool cores as one small guest holds in its turn."""
    first = unit_groups(topology, split_cores=policy.cores.split_cores)[0]
    others = topology.pool.cores.difference(first)
    return replace(
        topology,
        cpus=tuple(
            replace(cpu, role=Role.RESERVED, reason="not measured") if cpu.id in others else cpu
            for cpu in topology.cpus
        ),
    )


# The pool's time.


async def _measure_uses(bench: _Bench) -> list[Use]:
    """Let many guests take turns on the whole pool, at one length of slice after the other."""
    launcher, extent = bench.launcher, bench.extent
    clock, turns = realtime.AlarmClock(), Turns()
    first = _with_slice(bench.policy, max(extent.slices))
    engine = Engine(launcher.topology, first, launcher, clock, on_notice=turns.note)
    guests = bench.guests("slices", extent.guests)
    bench.tell(f"{extent.guests} guests start", 0)
    async with going(engine, launcher, guests), collecting_when_idle(clock.left):
        uses = []
        for length in extent.slices:
            engine.reload(_with_slice(bench.policy, length))
            await asyncio.sleep(_SETTLING)
            uses.append(await _measure_use(bench, engine, clock, turns, length))
    return uses


def _with_slice(policy: Policy, length: Duration) -> Policy:
    rotation = replace(policy.rotation, slice=length, minimum_run=min(length, policy.rotation.minimum_run))
    return replace(policy, rotation=rotation)


async def _measure_use(
    bench: _Bench, engine: Engine, clock: realtime.AlarmClock, turns: Turns, length: Duration
) -> Use:
    """Return what became of the pool's time at the slices that are in force."""
    launcher, extent = bench.launcher, bench.extent
    before, start = _cpu_seconds(engine), clock.now()
    while (passed := clock.now() - start) < extent.seconds:
        bench.tell(f"turns of {length}", passed / extent.seconds)
        await asyncio.sleep(min(1.0, extent.seconds - passed))
    end = clock.now()
    used = _cpu_seconds(engine) - before
    lost = [f"{guest.name} ({guest.ended})" for guest in engine.guests.values() if guest.ended is not None]
    if lost:
        raise FailedError(f"guests ended while they were measured: {', '.join(lost)}; try again on a quieter host")
    within = int(start * _NANOSECONDS), int(end * _NANOSECONDS)
    capacity = len(launcher.topology.pool) * (end - start)
    return Use(
        slice_ms=length / 1_000_000,
        guests=extent.guests,
        cores=bench.cores(launcher.topology),
        seconds=end - start,
        handovers=turns.begun(*within),
        useful=turns.used(*within) / _NANOSECONDS / capacity,
        cpu=used / capacity,
    )


def _cpu_seconds(engine: Engine) -> float:
    engine.look()
    return sum(guest.cpu_seconds for guest in engine.guests.values())

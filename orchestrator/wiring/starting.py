"""`orchestrator bench start`, put together: real guests, the real engine, and bare QEMU in the same run.

Set up as `bench handover` is: the host's one scheduler meanwhile, with no other guest, on core 1 where it is lent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orchestrator
from orchestrator.bench.handover import Machine
from orchestrator.bench.place import cpu_name
from orchestrator.bench.start import BARE, CLONE, LIBVIRT, STAGED, Extent, Kind, Memory, StartReport, medians
from orchestrator.contexts import Contexts
from orchestrator.core.arch import TRAITS
from orchestrator.core.context import Kind as StateKind
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import Architecture, KernelBoot, PayloadBoot
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.engine import Engine, Guest
from orchestrator.errors import FailedError
from orchestrator.host import realtime
from orchestrator.host.emulators import QemuPrograms
from orchestrator.host.places import runtime_directory, state_directory
from orchestrator.host.prerequisites import emulator
from orchestrator.host.state_files import StateDirectories
from orchestrator.launch import Launcher
from orchestrator.recorder import Unrecorded
from orchestrator.shelf import Shelf
from orchestrator.wiring.definitions import accelerator_for, emulator_path, load_guests, to_run
from orchestrator.wiring.handover import Tell, alone_on, require_pool_or_loan
from orchestrator.wiring.site import load_topology
from orchestrator.wiring.stage import collecting_when_idle, interruptible
from orchestrator.wiring.states import codec

DOMAINS = Path(orchestrator.__file__).parents[1] / "domains"
LINUX = "linux-x86_64"

_LOOK_EVERY = 0.0005
_LIMIT = 180.0  # seconds for one heartbeat, with eight guests on one core and a host with other things to do


@dataclass(slots=True)
class _Bench:
    """What is measured with. `turns` has when each guest's last turn began."""

    policy: Policy
    launcher: Launcher
    engine: Engine
    contexts: Contexts
    cores: str
    turns: dict[str, float]

    async def beat(self, name: str, beats: int = 1) -> float:
        """Return when a guest's log has so many heartbeats. FailedError if it ends, or none comes."""
        start = time.monotonic()
        while (now := time.monotonic()) - start < _LIMIT:
            if _beats(self.launcher.files.serial_log(name).text) >= beats:
                return now
            guest = self.engine.guests.get(name)
            if guest is not None and guest.ended is not None:
                raise FailedError(f"{name}: ended while it was measured: {guest.ended}; try again on a quieter host")
            await asyncio.sleep(_LOOK_EVERY)
        raise FailedError(f"{name}: no heartbeat within {_LIMIT:g} s; try again on a quieter host")

    async def turn(self, name: str) -> float:
        """Return when a guest's turn began, which may be confirmed after it has beaten."""
        for _ in range(int(_LIMIT / _LOOK_EVERY)):
            if name in self.turns:
                return self.turns[name]
            await asyncio.sleep(_LOOK_EVERY)
        raise FailedError(f"{name}: no turn within {_LIMIT:g} s; try again on a quieter host")

    async def end(self, names: Sequence[str]) -> None:
        """End guests at once, and forget them."""
        for name in names:
            await self.engine.kill(name)
            self.engine.guests.pop(name, None)


async def measure(policy: Policy, *, borrow: bool, extent: Extent, tell: Tell) -> StartReport:
    """Measure starts; every guest is ended and every file removed, whatever happens.

    Raises as `handover.measure`.
    """
    topology = load_topology(policy)
    require_pool_or_loan(topology, borrow=borrow)
    async with alone_on(topology, borrow=borrow) as launcher:
        return await interruptible(_measure(policy, launcher, extent, tell, borrow=borrow))


async def measure_crowd(policy: Policy, *, borrow: bool, count: int, tell: Tell) -> tuple[float, float]:
    """Start so many guests of all architectures at once; return the seconds until each has beaten, ours and bare.

    Bare QEMUs have the same cores, and none of them waits for a turn: each is ended as soon as it has beaten.
    """
    topology = load_topology(policy)
    require_pool_or_loan(topology, borrow=borrow)
    async with alone_on(topology, borrow=borrow) as launcher:

        async def act() -> tuple[float, float]:
            async with _going(policy, launcher, borrow=borrow) as bench:
                kinds = [f"heartbeat-{architecture}" for architecture in Architecture]
                guests = [_guests(bench, kinds[number % len(kinds)], [f"mixed-{number}"])[0] for number in range(count)]
                tell(f"{count} guests at once", 0.0)
                start = time.monotonic()
                await bench.engine.start(guests)
                ours = max([await bench.beat(guest.spec.name) for guest in guests]) - start
                await bench.end([guest.spec.name for guest in guests])
                tell(f"{count} bare QEMUs at once", 0.5)
                return ours, await _start_all_bare(guests, bench.cores)

        return await interruptible(act())


async def _measure(policy: Policy, launcher: Launcher, extent: Extent, tell: Tell, *, borrow: bool) -> StartReport:
    from orchestrator.bench.rivals import libvirt_version  # brings libvirt, which must first be told where to log

    kinds = [*(f"heartbeat-{architecture}" for architecture in Architecture), LINUX]
    async with _going(policy, launcher, borrow=borrow) as bench:
        measured = []
        for number, name in enumerate(kinds):
            tell(name, number / (len(kinds) + 1))
            rounds = extent.linux_rounds if name == LINUX else extent.rounds
            measured.append(await _measure_kind(bench, name, rounds))
        tell("memory", len(kinds) / (len(kinds) + 1))
        memory = await _measure_memory(bench, extent.guests)
    machine = Machine(
        cpu=cpu_name(),
        python=platform.python_version(),
        qemu=emulator(Architecture.I386, TRAITS[Architecture.I386].emulator, "").found,
        libvirt=libvirt_version(),
        accelerator=accelerator_for(Architecture.X86_64, policy).accelerator,
        realtime=not realtime.go_before_others(),
    )
    return StartReport(asdict(machine), borrow, tuple(measured), memory)


@contextlib.asynccontextmanager
async def _going(policy: Policy, launcher: Launcher, *, borrow: bool) -> AsyncIterator[_Bench]:
    turns: dict[str, float] = {}

    def note(notice: Notice) -> None:
        if notice.what is Happening.TURN_BEGAN:
            turns[notice.guest] = time.monotonic()

    clock = realtime.AlarmClock()
    engine = Engine(launcher.topology, policy, launcher, clock, on_notice=note)
    states = Path(tempfile.mkdtemp(prefix="bench-start-", dir=state_directory(os.environ)))
    emulators = QemuPrograms(emulator_path, lambda which: accelerator_for(which, policy).accelerator)
    shelf = Shelf(StateDirectories(states), emulators, codec(lambda _: False))
    contexts = Contexts(engine, launcher, shelf, Unrecorded(), time.time_ns)
    cores = str(SERVICE_CORE) if borrow else format_cpulist(launcher.topology.pool)
    running = asyncio.create_task(engine.run())
    try:
        async with collecting_when_idle(clock.left):
            yield _Bench(policy, launcher, engine, contexts, cores, turns)
    finally:
        for name in list(engine.guests):
            await engine.kill(name)
            shutil.rmtree(launcher.files.directory(name), ignore_errors=True)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        shutil.rmtree(states)


def _guests(bench: _Bench, name: str, called: Sequence[str]) -> list[Guest]:
    """Return guests of a shipped definition, which beat fast, so that one that goes on is seen to at once."""
    (parsed,) = load_guests([DOMAINS / f"{name}.toml"])
    spec = parsed.spec
    if isinstance(spec.boot, PayloadBoot):
        quick = DOMAINS / "build" / f"quick-{spec.architecture}.elf"
        spec = replace(spec, boot=PayloadBoot(payload=str(quick)))
    elif isinstance(spec.boot, KernelBoot):
        spec = replace(spec, boot=replace(spec.boot, cmdline=f"{spec.boot.cmdline} beat_pause=0"))
    choice = {spec.architecture: accelerator_for(spec.architecture, bench.policy)}
    return [to_run([replace(parsed, spec=replace(spec, name=each))], 1, choice)[0] for each in called]


async def _measure_kind(bench: _Bench, name: str, rounds: int) -> Kind:
    """Measure all ways by turns, so that what else the host does falls on each alike."""
    engine, contexts = bench.engine, bench.contexts
    times: dict[str, list[float]] = {way: [] for way in (LIBVIRT, BARE, CLONE, STAGED)}
    turns: list[float] = []
    (origin,) = _guests(bench, name, [name])
    await engine.start([origin])
    await bench.beat(name)
    await contexts.template(name, name)
    await bench.end([name])
    for number in range(rounds):
        (cold,) = _guests(bench, name, [f"cold-{number}"])
        start = time.monotonic()
        await engine.start([cold])
        times[LIBVIRT].append(await bench.beat(cold.spec.name) - start)
        await bench.end([cold.spec.name])
        times[BARE].append(await asyncio.to_thread(_start_bare, origin, bench.cores))
        start = time.monotonic()
        (clone,) = (await contexts.clone(name, 1, [f"clone-{number}"])).names
        times[CLONE].append(await bench.beat(clone) - start)
        await bench.end([clone])
        (staged,) = (await contexts.clone(name, 1, [f"staged-{number}"], staged=True)).names
        bench.turns.pop(staged, None)  # of another kind's
        start = time.monotonic()
        resuming = asyncio.create_task(engine.resume(staged))
        times[STAGED].append(await bench.beat(staged) - start)
        await resuming
        turns.append(await bench.turn(staged) - start)
        await bench.end([staged])
    await contexts.remove(StateKind.TEMPLATE, name)
    found = medians({**times, "turn": turns})
    return Kind(name, rounds, {way: found[way] for way in times}, found["turn"])


async def _measure_memory(bench: _Bench, count: int) -> Memory:
    """Measure what guests have for themselves, once each has beaten: cold ones, and clones of one template."""
    cold = [f"cold-{number}" for number in range(count)]
    await bench.engine.start(_guests(bench, LINUX, cold))
    for name in cold:
        await bench.beat(name)
    private = _private(bench, cold)
    await bench.contexts.template(cold[0], LINUX)
    await bench.end(cold)
    clones = (await bench.contexts.clone(LINUX, count, [f"clone-{number}" for number in range(count)])).names
    for name in clones:
        await bench.beat(name)
    return Memory(LINUX, count, private, _private(bench, clones))


def _private(bench: _Bench, names: Sequence[str]) -> int:
    total = 0
    for name in names:
        pid = bench.engine.guests[name].pid
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("Private_Clean", "Private_Dirty"):
                total += int(value.split()[0]) * 1024
    return total


async def _start_all_bare(guests: list[Guest], cores: str) -> float:
    """Start QEMU alone for all at once, from a thread each; return the seconds until each has beaten."""

    def beaten(guest: Guest) -> float:
        return time.monotonic() + _start_bare(guest, cores)

    loop, start = asyncio.get_running_loop(), time.monotonic()
    with ThreadPoolExecutor(len(guests)) as pool:
        return max(await asyncio.gather(*(loop.run_in_executor(pool, beaten, guest) for guest in guests))) - start


def _start_bare(guest: Guest, cores: str) -> float:
    """Start QEMU alone for a definition, on the cores that guests have; return the seconds to its first heartbeat."""
    spec, traits = guest.spec, TRAITS[guest.spec.architecture]
    with tempfile.TemporaryDirectory(dir=runtime_directory(os.environ)) as directory:
        log = Path(directory) / "serial.log"
        boot: list[str] = []
        match spec.boot:
            case PayloadBoot(payload=payload):
                boot = ["-kernel", payload]
            case KernelBoot(kernel=kernel, initrd=initrd, cmdline=cmdline):
                boot = ["-kernel", kernel, "-initrd", initrd or os.devnull, "-append", cmdline]
        command = ["taskset", "--cpu-list", cores, guest.emulator, "-nodefaults", "-no-user-config"]
        command += ["-display", "none", "-machine", f"{traits.machine},accel={guest.accelerator}"]
        command += ["-cpu", "host" if guest.accelerator == "kvm" else traits.tcg_cpu, "-m", f"{int(spec.memory)}B"]
        command += ["-serial", f"file:{log}", *boot]
        start = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as qemu:
            try:
                while _beats(log.read_bytes() if log.exists() else b"") == 0:
                    if qemu.poll() is not None or time.monotonic() - start > _LIMIT:
                        raise FailedError(f"{spec.name}: bare QEMU gives no heartbeat")
                    time.sleep(_LOOK_EVERY)
                return time.monotonic() - start
            finally:
                qemu.kill()


def _beats(text: bytes) -> int:
    """Return how many whole heartbeats a log has."""
    return sum(line.startswith(b"heartbeat ") for line in text.split(b"\n")[:-1])

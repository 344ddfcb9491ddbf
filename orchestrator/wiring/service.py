"""`orchestrator serve`, put together: the daemon, its engine on real adapters, its socket, and the signals it obeys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.lifecycle import State
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.core.windows import effective
from orchestrator.errors import OrchestratorError
from orchestrator.wiring import emergency
from orchestrator.wiring.client import default_socket
from orchestrator.wiring.guests import build_launcher, open_hypervisor
from orchestrator.wiring.housekeeping import keep_in_place, look, shield_keeper
from orchestrator.wiring.metrics import metrics_port
from orchestrator.wiring.records import accounting_of, keep_samples, kept_events, recording
from orchestrator.wiring.sent import SentDefinitions
from orchestrator.wiring.serial import ServedSerials
from orchestrator.wiring.site import guest_directories, load_policy, load_topology
from orchestrator.wiring.states import build_contexts, keep_warm

if TYPE_CHECKING:
    import socket

    from orchestrator.contexts import Contexts
    from orchestrator.core.orders import Notice
    from orchestrator.core.policy import Policy
    from orchestrator.core.topology import Topology
    from orchestrator.engine import Engine
    from orchestrator.host.heartbeat import Heart
    from orchestrator.host.notify import Notifier
    from orchestrator.host.realtime import AlarmClock
    from orchestrator.launch import Launcher
    from orchestrator.planner import Planner
    from orchestrator.recorder import Recorder
    from orchestrator.service.desk import Desk
    from orchestrator.wiring.emergency import Heeding

FINISH_LIMIT = 20.0
"""Seconds for which the end waits for what is being done."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Settings:
    """What the daemon was started with; `policy` is replaced when its file has been read anew."""

    policy_file: Path | None
    policy: Policy
    connect: str | None
    socket: Path | None
    metrics: str | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """Where the daemon is called, and whom it tells how it is."""

    listener: socket.socket
    notifier: Notifier
    tell: Tell


@dataclass(slots=True)
class Daemon:
    """The parts of the daemon that signals and requests have to do with."""

    engine: Engine
    desk: Desk
    definitions: SentDefinitions
    planner: Planner
    settings: Settings
    outside: Outside

    def reload(self) -> None:
        """Read the policy anew; an invalid one changes nothing."""
        path = self.settings.policy_file
        if path is None:
            self.outside.tell("reload: no --policy was given, so there is nothing to read anew")
            return
        self.outside.notifier.reloading()
        try:
            policy = load_policy(path)
            how = "nothing has changed"
            if policy != self.policy:
                kept = self.take(policy)
                how = f"in force, but for {len(kept)} that stay" if kept else "in force"
        except OrchestratorError as error:
            for line in error.lines():
                self.outside.tell(line)
            how = "refused; the policy is as before"
        self.outside.tell(f"reload: {path}: {how}")
        self.desk.events.add("policy", why=f"{path}: {how}")
        self.outside.notifier.ready(_status(self.engine))

    @property
    def policy(self) -> Policy:
        """The policy that is gone by, with what it plans for other times."""
        return self.planner.policy

    def take(self, policy: Policy) -> tuple[str, ...]:
        """Go by another policy; return a line for each value that cannot be changed while guests go on."""
        kept = self.planner.plan(policy)
        self.settings.policy = self.planner.policy
        for line in kept:
            self.outside.tell(line)
        return kept


async def serve(settings: Settings, tell: Tell) -> None:
    """Serve until SIGTERM or SIGINT, which leave guests as they are; SIGHUP reads the policy anew.

    `tell` is given a line for whatever somebody should know. Raises HostError on a host without a pool, RefusedError if
    another scheduler runs.
    """
    from orchestrator.engine import require_pool
    from orchestrator.host.notify import Notifier
    from orchestrator.host.writer_lock import WriterLock
    from orchestrator.service.server import listening

    topology = load_topology(settings.policy)
    require_pool(topology)
    notifier, runtime = Notifier(), _directories()
    lock = WriterLock(runtime / "scheduler.lock")
    lock.acquire()
    try:
        # Who calls while guests are still being taken over is answered as soon as they have been.
        with listening(settings.socket or default_socket()) as listener:
            await _schedule(settings, topology, Outside(listener, notifier, tell))
    finally:
        lock.release()


async def _schedule(settings: Settings, topology: Topology, outside: Outside) -> None:
    from orchestrator.host import realtime

    tell = outside.tell
    realtime.pin_to(SCHEDULER_CORE)
    for why in (realtime.go_before_others(), realtime.lock_memory()):
        if why:
            tell(f"note: {why}")
    connect = settings.connect or settings.policy.hypervisor.connect
    async with open_hypervisor(connect, tell) as hypervisor, recording(settings.policy, tell) as recorder:
        launcher = build_launcher(topology, hypervisor, connect, settings.policy.hypervisor)
        clock = realtime.AlarmClock()
        daemon = _assemble(settings, launcher, clock, recorder, outside)
        pinned = daemon.definitions.pinned
        contexts = build_contexts(daemon.engine, launcher, lambda: settings.policy, pinned, recorder)
        heeding = emergency.heeding(daemon.engine, launcher, recorder, tell)
        heart = emergency.heart()
        await _run(daemon, contexts, recorder, (heeding, heart), clock)
        heart.end()


def _assemble(
    settings: Settings,
    launcher: Launcher,
    clock: AlarmClock,
    recorder: Recorder,
    outside: Outside,
) -> Daemon:
    from orchestrator.engine import Engine
    from orchestrator.host.calendar import HostCalendar
    from orchestrator.host.opening import UserFiles
    from orchestrator.planner import Planner
    from orchestrator.service.desk import Desk

    def note(notice: Notice) -> None:
        desk.note(notice)

    calendar, tell = HostCalendar(), outside.tell
    policy = effective(settings.policy, calendar.local()).policy
    accounting = accounting_of(recorder, policy, calendar, clock, tell)
    engine = Engine(launcher.topology, policy, launcher, clock, note, recorder, accounting)
    definitions = SentDefinitions(policy, UserFiles((SERVICE_CORE,)))
    desk = Desk(engine, definitions, kept_events(recorder), clock)
    planner = Planner(engine, calendar, settings.policy, tell, definitions.go_by)
    return Daemon(engine, desk, definitions, planner, settings, outside)


async def _run(
    daemon: Daemon, contexts: Contexts, recorder: Recorder, guarded: tuple[Heeding, Heart], clock: AlarmClock
) -> None:
    from orchestrator.config import decode_guest
    from orchestrator.host.processes import ProcFs
    from orchestrator.host.realtime import Collector
    from orchestrator.service.api import Api, Desks
    from orchestrator.service.overview import OverviewDesk
    from orchestrator.service.policies import PolicyDesk
    from orchestrator.service.serials import SerialDesk
    from orchestrator.service.server import answering
    from orchestrator.service.states import StateDesk

    collector = Collector(clock.left)
    engine, desk, tell, listener = daemon.engine, daemon.desk, daemon.outside.tell, daemon.outside.listener
    heeding, heart = guarded
    began = time.monotonic()
    await heeding.prepare_adoption()
    for note in await engine.adopt(decode_guest):
        tell(note)
    for name in await recorder.reconcile([guest.domain for guest in engine.guests.values()]):
        tell(f"{name}: its process was gone when the scheduler came back")
    if engine.guests:
        tell(f"took over {_counted(engine.guests)} in {time.monotonic() - began:.2f} s")
    ended = _signals(daemon)
    async with _going(engine) as running:
        door = emergency.door(heeding)
        policies = PolicyDesk(desk, engine, daemon.definitions, daemon)
        serials = SerialDesk(desk, ServedSerials())
        for note in await contexts.finish():
            tell(note)
        overview = OverviewDesk(desk, engine, ProcFs().memory, recorder.kept)
        desks = Desks(policies, serials, StateDesk(desk, engine, contexts), overview)
        application = Api(desk, door, tell, version("orchestrator"), desks=desks).application()
        warming = keep_warm(contexts, lambda: engine.policy.warm, tell)
        sampling = keep_samples(overview, recorder)
        places = keep_in_place(engine, shield_keeper(recorder, tell))
        looks = (look(engine, tell), places, daemon.planner.run(clock))
        acts = (collector.run(), *looks, warming, sampling, emergency.beat(heart), heeding.run())
        housekeeping = [asyncio.create_task(act) for act in acts]
        try:
            async with answering(application, listener), metrics_port(daemon.settings.metrics, overview, tell):
                status = _status(engine)
                tell(f"serving on {listener.getsockname()}; {status}")
                daemon.outside.notifier.ready(status)
                await asyncio.wait({ended, running}, return_when=asyncio.FIRST_COMPLETED)
                daemon.outside.notifier.stopping()
                desk.events.close()
            await desk.finish(FINISH_LIMIT)
            tell(farewell(engine))
        finally:
            for task in housekeeping:
                task.cancel()
            await asyncio.gather(*housekeeping, return_exceptions=True)
        if running.done():
            running.result()  # raises what ended it


@contextlib.asynccontextmanager
async def _going(engine: Engine) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(engine.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _signals(daemon: Daemon) -> asyncio.Future[None]:
    """Return what is done at SIGTERM or SIGINT; obey SIGHUP from now on."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    return ended


def _status(engine: Engine) -> str:
    living = [guest for guest in engine.guests.values() if not guest.over]
    return f"{_counted(living)}, {len(engine.topology.pool)} pool cores"


def farewell(engine: Engine) -> str:
    """Say in a line what becomes of the guests without a scheduler."""
    guests: dict[State, list[str]] = {}
    for name in sorted(engine.guests):
        guests.setdefault(engine.state(name), []).append(name)
    guests.pop(State.STOPPED, None)
    parts = [f"{_counted(names)} left {state}: {', '.join(names)}" for state, names in sorted(guests.items())]
    if State.WAITING in guests:
        parts.append("who waits gets turns again from the next `orchestrator serve`")
    return f"ended; {'; '.join(parts) or 'no guest runs'}"


def _counted(guests: Collection[object]) -> str:
    return f"{len(guests)} guest{'' if len(guests) == 1 else 's'}"


def _directories() -> Path:
    """Make the run directory passable for others, who come to the socket in it, but nothing else there."""
    from orchestrator.host.places import runtime_directory

    runtime = runtime_directory(os.environ)
    guests = guest_directories()
    for path, mode in ((runtime / "libvirt", 0o700), (guests, 0o711), (runtime / "api", 0o711), (runtime, 0o711)):
        path.mkdir(exist_ok=True)
        path.chmod(mode)
    return runtime

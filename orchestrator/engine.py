"""The engine: carries out what the scheduler orders, and tells it what became of that. The only loop there is.

It names no adapter; what it needs of the world comes through ports. Acts on different guests run at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn

from orchestrator.adoption import adopt
from orchestrator.core.explain import Explanation
from orchestrator.core.handover import Continue, Halt, Phase
from orchestrator.core.model import GuestSpec, Mode
from orchestrator.core.orders import Freeze, Happening, Kill, Notice, Order
from orchestrator.core.placement import Refusal, seat
from orchestrator.core.plan import PauseGuest, Request, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.policy import Policy
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.steps import End, Launch
from orchestrator.core.topology import Topology
from orchestrator.errors import FailedError, HostError, OrchestratorError, OutcomeUnknownError, RefusedError, UsageError
from orchestrator.launch import Guest, Launcher, RunningGuest
from orchestrator.ports import Clock, DomainEvent, DomainEventKind
from orchestrator.recorder import Records, Unrecorded
from orchestrator.serial import read_serial
from orchestrator.together import all_or_first_failure

__all__ = ["Engine", "Guest", "RunningGuest", "require_pool"]

NANOSECONDS = 1_000_000_000

_UNRECORDED = Unrecorded()


class Engine:
    """Starts, rotates and ends guests on one host.

    `guests` are those that were started here, the ended ones too, by name. While `run` is running, turns are taken and
    deaths are noticed. `on_notice` is told what happens, after the engine has taken it in.
    """

    def __init__(
        self,
        topology: Topology,
        policy: Policy,
        launcher: Launcher,
        clock: Clock,
        on_notice: Callable[[Notice], None] = lambda _: None,
        records: Records = _UNRECORDED,
    ) -> None:
        self.topology = topology
        self.guests: dict[str, RunningGuest] = {}
        self._pool = topology.pool
        self._launcher = launcher
        self._clock = clock
        self._on_notice = on_notice
        self._records = records
        self._scheduler = Scheduler(topology, policy)
        self._wanted: dict[str, Guest] = {}
        self._started: list[str] = []
        self._failures: dict[str, OrchestratorError] = {}
        self._outcomes: dict[str, asyncio.Future[Notice]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stir = asyncio.Event()

    async def run(self) -> NoReturn:
        """Let turns be taken, and notice who ends by itself; never returns."""
        following = asyncio.create_task(self._follow_events())
        try:
            while True:
                await self._until_next_event()
                self._scheduler.tick(self._now())
                self._go_on()
        finally:
            following.cancel()
            for task in self._tasks:
                task.cancel()

    async def start(self, guests: Sequence[Guest]) -> None:
        """Start guests at the same time, or refuse all of them with every reason; raises the first failure, if any.

        Returns when each exclusive one runs and each shared one takes turns.
        """
        # The wide and the exclusive choose first: they are the harder to place.
        ordered = sorted(guests, key=lambda guest: (guest.spec.mode is not Mode.EXCLUSIVE, -guest.spec.cores_needed))
        requests = [StartGuest(spec=guest.spec, owner=guest.owner) for guest in ordered]
        refused = self._scheduler.refusals(requests, self._now())
        if refused:
            raise RefusedError("nothing was started: " + " | ".join(f"{name}: {why}" for name, why in refused))
        self._wanted |= {guest.spec.name: guest for guest in guests}
        self._started += [guest.spec.name for guest in guests]
        await all_or_first_failure([self._do(request) for request in requests])

    async def adopt(self, decode: Callable[[str], GuestSpec]) -> list[str]:
        """Take over what runs already, before `run`; return a line for each guest about which something was done.

        `decode` reads a definition back from the canonical JSON in a domain's metadata.
        """
        adopted, notes = await adopt(self._launcher, self._scheduler, decode, self._now)
        for one in adopted:
            self._wanted[one.running.name] = one.guest
            self._attend(one.running)
        self._go_on()
        return notes

    async def pause(self, name: str) -> None:
        """Let a guest stand still until it is resumed, also over a restart of the scheduler."""
        await self._toggle(PauseGuest(name), paused=True)

    async def resume(self, name: str) -> None:
        """Let a paused guest go on."""
        await self._toggle(ResumeGuest(name), paused=False)

    async def kill(self, name: str) -> None:
        """End a guest's process at once, without its help."""
        guest = self._known(name)
        with contextlib.suppress(HostError):  # as for an end
            await self._records.intend("kill", {"guest": name})
        guest.ended = guest.ended or "killed"
        if guest.pid is not None:
            self._launcher.processes.kill(guest.pid, str(guest.domain.uuid))
            await self._gone(guest, "killed")

    def explain(self, name: str) -> Explanation:
        """Say why a guest waits, or where it runs. Raises UsageError if there is none of this name."""
        return self._scheduler.explain(name, self._now())

    async def stop(self, names: Iterable[str]) -> None:
        """End guests at the same time; they stay in `guests`, with how they ended. Fine if they have ended already."""
        await all_or_first_failure([self._stop(name) for name in names])

    async def stop_all(self) -> None:
        """End every guest that was started here; those that were taken over go on."""
        await self.stop(self._started)

    def state(self, name: str) -> str:
        """Return a guest's state in a word."""
        guest = self.guests.get(name)
        if guest is None:
            return "starting"
        if guest.ended is not None:
            return guest.ended
        return "running" if self._scheduler.phase(name) in (Phase.RUNNING, Phase.SUSPENDING) else "waiting"

    def holders(self) -> dict[int, str]:
        """Return who holds each core that is held."""
        return {core: hold.holder for hold in self._scheduler.locks().holds for core in hold.cores}

    def look(self) -> None:
        """Read from the kernel where each running guest's threads are, and from its serial log what it said."""
        for guest in self.guests.values():
            self._launcher.look(guest)
            read_serial(guest, self._launcher.files)

    # Requests.

    async def _do(self, request: Request) -> None:
        """Make a request and wait until its plan has been carried out; raise what went wrong."""
        guest = request.guest
        outcome = self._scheduler.request(request, self._now())
        if isinstance(outcome, Refusal):
            raise RefusedError(f"{guest}: {outcome}")
        if not outcome.steps:
            return
        future = self._outcomes[guest] = asyncio.get_running_loop().create_future()
        self._go_on()
        notice = await future
        if notice.what is not Happening.DONE:
            raise self._failures.pop(guest, None) or FailedError(f"{guest}: {notice.why}")

    async def _toggle(self, request: PauseGuest | ResumeGuest, *, paused: bool) -> None:
        """Pause or resume; what is wanted is noted before it is done, and taken back if it cannot be."""
        await self._records.intend("pause" if paused else "resume", {"guest": request.guest})
        uuid = str(self._known(request.guest).domain.uuid)
        await self._launcher.hypervisor.mark_paused(uuid, paused=paused)
        try:
            await self._do(request)
        except RefusedError:
            await self._launcher.hypervisor.mark_paused(uuid, paused=not paused)
            raise

    def _known(self, name: str) -> RunningGuest:
        guest = self.guests.get(name)
        if guest is None or not self._scheduler.knows(name):
            raise UsageError(f"{name}: there is no such guest; `orchestrator ps` lists those that are")
        return guest

    async def _stop(self, name: str) -> None:
        while (future := self._outcomes.get(name)) is not None:  # a plan of it is under way
            await asyncio.wait({future})
        if self._scheduler.knows(name):
            self.guests[name].ended = self.guests[name].ended or "stopped"
            await self._do(StopGuest(name))

    # The scheduler's orders.

    def _go_on(self) -> None:
        """Give out what the scheduler wants done, and take in what it tells."""
        for order in self._scheduler.orders():
            self._begin(self._carry_out(order))
        for notice in self._scheduler.notices():
            if notice.what in (Happening.DONE, Happening.UNDONE, Happening.GONE, Happening.QUARANTINED):
                future = self._outcomes.pop(notice.guest, None)
                if future is not None and not future.done():
                    future.set_result(notice)
            self._records.tell(notice)
            self._on_notice(notice)
        self._stir.set()

    async def _carry_out(self, order: Order) -> None:
        name = order.guest
        try:
            await self._act(order)
        except OutcomeUnknownError as error:
            self._failures[name] = error
            self._scheduler.failed(order, str(error), self._now(), unknown=True)
        except OrchestratorError as error:
            self._failures[name] = error
            await self._give_up(order, error)
        else:
            self._scheduler.done(order, self._now())
        self._go_on()

    async def _give_up(self, order: Order, error: OrchestratorError) -> None:
        """End a guest that could not be let run, or stopped; a launch has undone itself, and an end is forced later."""
        guest = self.guests.get(order.guest)
        if isinstance(order, Launch | End) or guest is None or guest.pid is None:
            self._scheduler.failed(order, str(error), self._now())
            return
        if guest.ended is None:  # else it is being ended, and could not have its turn for that reason
            guest.ended, guest.crashed = str(error), True
        try:
            await self._launcher.clear(guest.domain)
        except OrchestratorError as worse:
            self._failures[order.guest] = OutcomeUnknownError(
                f"{error}; what is left could not be cleared away: {worse}"
            )
            self._scheduler.failed(order, str(error), self._now(), unknown=True)
        else:
            await self._gone(guest, str(error))

    async def _act(self, order: Order) -> None:
        name = order.guest
        match order:
            case Launch():
                await self._records.intend("start", self._intent(name, order))
                await self._launch(name, order)
            case Continue(_, cores, _, _):
                guest = self.guests[name]
                await self._launcher.resume(guest, seat(guest.domain.spec, cores, self.topology, self._pool))
            case Halt():
                await self._launcher.suspend(self.guests[name])
            case End():
                with contextlib.suppress(HostError):  # a full disk must not keep anybody from making room
                    await self._records.intend("end", {"guest": name})
                await self._launcher.clear(self.guests[name].domain)
                self._forget(self.guests[name])
            case Freeze() | Kill():
                self._force(order)

    async def _launch(self, name: str, order: Launch) -> None:
        domain = self._wanted[name].placed(order.placement, self._launcher.files.directory(name))
        self._attend(await self._launcher.launch(domain))

    def _attend(self, guest: RunningGuest) -> None:
        """Take a guest in, and watch for its end."""
        self.guests[guest.name] = guest
        self._records.began(guest.domain)
        self._begin(self._watch(guest))

    def _begin(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _force(self, order: Freeze | Kill) -> None:
        """Freeze or kill without the guest's help; one whose launch came to nothing may have no process."""
        name, processes = order.guest, self._launcher.processes
        uuid = self._wanted[name].uuid(self._launcher.files.directory(name))
        pid = processes.find(uuid)
        if pid is None:
            self._scheduler.gone(name, "its process has gone", self._now())
        elif isinstance(order, Freeze):
            processes.freeze(pid, uuid)
        else:
            processes.kill(pid, uuid)

    # What happens by itself.

    async def _watch(self, guest: RunningGuest) -> None:
        """Notice the end of a guest's QEMU by its monitor, which hangs up first."""
        await guest.monitor.closed()
        await guest.monitor.close()
        await self._gone(guest, "QEMU ended")

    async def _follow_events(self) -> None:
        async for event in self._launcher.hypervisor.events():
            self._record(event)
            guest = self.guests.get(event.name)
            if guest is not None:
                await self._gone(guest, event.detail)

    def _record(self, event: DomainEvent) -> None:
        """Note how a guest of ours ended that nobody here asked to."""
        guest = self.guests.get(event.name)
        if guest is not None and guest.ended is None:
            guest.ended, guest.crashed = event.detail, event.kind is DomainEventKind.CRASHED

    async def _gone(self, guest: RunningGuest, why: str) -> None:
        """Give a guest's cores on, and clear away what it leaves, once."""
        if guest.pid is None or self.guests.get(guest.name) is not guest:
            return
        self._forget(guest)
        self._scheduler.gone(guest.name, guest.ended or why, self._now())
        self._go_on()
        with contextlib.suppress(OrchestratorError):  # the next start of this name clears away what is left
            await self._launcher.clear(guest.domain)

    def _forget(self, guest: RunningGuest) -> None:
        """Note, once, that a guest's process is no more."""
        if guest.pid is not None:
            guest.pid = None
            self._records.ended(guest.domain, guest.ended or "ended", "failed" if guest.crashed else "stopped")

    def _intent(self, name: str, order: Launch) -> dict[str, Any]:
        guest = self._wanted[name]
        cores = list(order.placement.held)
        return {"guest": name, "owner": guest.owner, "cores": cores, "specification": guest.specification}

    async def _until_next_event(self) -> None:
        """Return when the scheduler wants a tick."""
        while (event := self._scheduler.next_event()) is None or event > self._now():
            self._stir.clear()
            stirred = asyncio.create_task(self._stir.wait())
            seconds = None if event is None else (event - self._now()) / NANOSECONDS
            timer = None if seconds is None else asyncio.create_task(self._clock.sleep(seconds))
            waiting: set[asyncio.Task[object]] = {task for task in (stirred, timer) if task is not None}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    def _now(self) -> int:
        return int(self._clock.now() * NANOSECONDS)


def require_pool(topology: Topology) -> None:
    """Raise HostError if this host has no core that a guest may have."""
    if not topology.pool:
        raise HostError(
            f"this host has no pool core: guests need cores beside 0 (scheduler) and 1 (service), and of its "
            f"{len(topology.cpus)} online cores all are reserved; "
            "`orchestrator lab run -- COMMAND` gives you a host with six"
        )

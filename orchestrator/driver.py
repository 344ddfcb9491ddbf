"""Carries out what the scheduler orders, and tells it what became of that. No decision is taken here."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.core.handover import Continue, Halt
from orchestrator.core.life import Life
from orchestrator.core.lifecycle import Event
from orchestrator.core.model import Mode
from orchestrator.core.orders import Freeze, Happening, Kill, Notice, Order
from orchestrator.core.placement import Placement, Refusal, seat
from orchestrator.core.plan import Request, StopGuest
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.steps import End, Launch, Reseat
from orchestrator.errors import (
    FailedError,
    HostError,
    OrchestratorError,
    OutcomeUnknownError,
    PinMismatchError,
    RefusedError,
)
from orchestrator.launch import NANOSECONDS, Guest, Launcher, RunningGuest
from orchestrator.ports import Clock
from orchestrator.recorder import Records
from orchestrator.reseating import reseat

LAST_WORDS = 0.1
"""Seconds in which the monitor of a process that has ended has hung up; it takes milliseconds."""

_SETTLES = (Happening.DONE, Happening.UNDONE, Happening.GONE, Happening.QUARANTINED)


class Observer(Protocol):
    """Who is told what has become of guests."""

    def launched(self, guest: RunningGuest) -> None:
        """Take in a guest that has a process now."""

    def told(self, notice: Notice) -> None:
        """Take in what the scheduler tells."""


class Driver:
    """Between the scheduler and the host: requests go in, acts are done; those on different guests at the same time.

    `wanted` are definitions, `lives` go on from the first start to the stop, `guests` have or had a process; all by
    name. `stir` is set when there may be something new to wait for, `settled` when any plan has ended.
    """

    observer: Observer

    def __init__(self, scheduler: Scheduler, launcher: Launcher, clock: Clock, records: Records) -> None:
        self.scheduler = scheduler
        self.launcher = launcher
        self.clock = clock
        self.records = records
        self.wanted: dict[str, Guest] = {}
        self.lives: dict[str, Life] = {}
        self.guests: dict[str, RunningGuest] = {}
        self.stir = asyncio.Event()
        self.settled = asyncio.Event()
        self._failures: dict[str, OrchestratorError] = {}
        self._outcomes: dict[str, asyncio.Future[Notice]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None
        self._clearing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def now(self) -> int:
        """Return the clock's time in nanoseconds."""
        return int(self.clock.now() * NANOSECONDS)

    # Requests.

    async def ask(self, request: Request) -> None:
        """Make a request and wait until its plan has been carried out; raise what went wrong."""
        await self.outcome(request.guest, self.request(request))

    async def outcome(self, name: str, future: asyncio.Future[Notice] | None) -> None:
        """Wait until a plan for a guest has been carried out, if there is one; raise what went wrong."""
        if future is not None:
            notice = await future
            if notice.what is not Happening.DONE:
                raise self._failures.pop(name, None) or FailedError(f"{name}: {notice.why}")

    def request(self, request: Request) -> asyncio.Future[Notice] | None:
        """Make a request; return what will tell how its plan has ended, None if there is nothing to do.

        Raises RefusedError, or UsageError if there is no such guest.
        """
        name = request.guest
        outcome = self.scheduler.request(request, self.now())
        if isinstance(outcome, Refusal):
            raise RefusedError(f"{name}: {outcome}")
        if not outcome.steps:
            return None
        self.lives[name].begins(request)
        self._failures.pop(name, None)
        future = self._outcomes[name] = asyncio.get_running_loop().create_future()
        self.go_on()
        return future

    async def rest(self, name: str) -> None:
        """Return when no plan of a guest is under way."""
        while (future := self._outcomes.get(name)) is not None:
            await asyncio.wait({future})

    # The scheduler's orders.

    def go_on(self) -> None:
        """Give out what the scheduler wants done, and take in what it tells."""
        for order in self.scheduler.orders():
            self.begin(self._carry_out(order))
        self._take_in()

    def _take_in(self) -> None:
        for notice in self.scheduler.notices():
            if notice.what in _SETTLES:
                future = self._outcomes.pop(notice.guest, None)
                if future is not None and not future.done():
                    future.set_result(notice)
                self.settled.set()
                self.settled = asyncio.Event()
            self.observer.told(notice)
        self.stir.set()

    def begin(self, act: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside everything else; what it raises ends the engine's run, being a defect."""
        task = asyncio.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def raise_defect(self) -> None:
        """Raise what something that was begun has raised, if anything has, here and to all who wait."""
        if self._defect is not None:
            for future in self._outcomes.values():
                if not future.done():
                    future.set_exception(self._defect)
            raise self._defect

    def cancel_all(self) -> None:
        """Let go of everything that was begun."""
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._defect = defect
            self.stir.set()

    async def _carry_out(self, order: Order) -> None:
        """Do what was ordered, and the turn that this makes room for, without a task and a round of the loop more."""
        due: Order | None = order
        while due is not None:
            due = await self._see_to(due)

    def _hand_on(self) -> Continue | None:
        """Give out what is due but for one turn, which is returned; what the scheduler tells can wait for that."""
        orders = self.scheduler.orders()
        turn = next((order for order in orders if isinstance(order, Continue)), None)
        for order in orders:
            if order is not turn:
                self.begin(self._carry_out(order))
        if turn is None:
            self._take_in()
        else:
            asyncio.get_running_loop().call_soon(lambda: self.begin(self._take_in_later()))
        return turn

    async def _take_in_later(self) -> None:
        self._take_in()

    async def _see_to(self, order: Order) -> Continue | None:
        at_hand = self.guests.get(order.guest) if isinstance(order, Continue | Halt) else None
        try:
            await self._act(order)
        except OrchestratorError as error:
            # What was asked of a guest that has ended meanwhile is no failure of the one that has its name now.
            if at_hand is None or not at_hand.over:
                await self._failed(order, error)
        else:
            self.scheduler.done(order, self.now())
        return self._hand_on()

    async def _failed(self, order: Order, error: OrchestratorError) -> None:
        self._failures[order.guest] = error
        if isinstance(error, OutcomeUnknownError):
            self.scheduler.failed(order, str(error), self.now(), unknown=True)
        else:
            await self._give_up(order, error)

    async def _give_up(self, order: Order, error: OrchestratorError) -> None:
        """End a guest that could not be let run, or stopped; a launch has undone itself, and an end is forced later."""
        guest = self.guests.get(order.guest)
        if isinstance(order, Launch | Reseat | End) or guest is None or guest.over:
            self.scheduler.failed(order, str(error), self.now())
            return
        if not isinstance(error, PinMismatchError):  # its process may have ended, and if so its monitor knows why
            await first_of(guest.hung_up.wait(), self.clock.sleep(LAST_WORDS))
        if not guest.hung_up.is_set():
            self.lives[order.guest].blame(Event.QEMU_CRASHED, str(error))
        try:
            await self.clear(guest)
        except OrchestratorError as worse:
            self._failures[order.guest] = OutcomeUnknownError(
                f"{error}; what is left could not be cleared away: {worse}"
            )
            self.scheduler.failed(order, str(error), self.now(), unknown=True)
        else:
            await self.gone(guest)

    async def _act(self, order: Order) -> None:
        name, launcher = order.guest, self.launcher
        match order:
            case Launch():
                await self.records.intend("start", self._intent(name, order))
                await self._launch(name, order)
            case Continue(_, cores, _, _):
                await launcher.resume(self.guests[name], self._seat(self.guests[name], cores))
            case Halt():
                await launcher.suspend(self.guests[name])
            case Reseat():
                await self._reseat(self.guests[name], order.placement)
            case End():
                with contextlib.suppress(HostError):  # a full disk must not keep anybody from making room
                    await self.records.intend("end", {"guest": name})
                await self._end(self.guests[name])
            case Freeze() | Kill():
                self._force(order)

    async def _launch(self, name: str, order: Launch) -> None:
        wanted = self.wanted[name]
        domain = wanted.placed(order.placement, self.launcher.files.directory(name))
        async with self._clearing[name]:  # its uuid is that of the one before
            guest = await self.launcher.launch(domain, wanted.origin)
            guest.disk = wanted.disk
            self.guests[name] = guest
            self.wanted[name] = replace(wanted, origin=None, staged=False)
        self.observer.launched(guest)

    def _seat(self, guest: RunningGuest, cores: tuple[int, ...]) -> Placement:
        """Return where a guest runs now: an exclusive one where it is, a shared one on the cores of its turn."""
        spec, before, topology = guest.domain.spec, guest.domain.placement, self.launcher.topology
        stays = spec.mode is Mode.EXCLUSIVE or before.held == cores
        return before if stays else seat(spec, cores, topology, topology.pool)

    async def _reseat(self, guest: RunningGuest, placement: Placement) -> None:
        cores = {"cores": list(placement.vcpus), "held": list(placement.held)}
        await self.records.intend("reseat", {"guest": guest.name, **cores})
        await reseat(self.launcher, guest, placement, self.clock)
        self.records.moved(guest.domain)

    async def _end(self, guest: RunningGuest) -> None:
        """Let a guest shut down by itself, for as long as it may, then end it by force."""
        life = self.lives[guest.name]
        if life.grace and await self._press(guest):
            await first_of(guest.hung_up.wait(), self.clock.sleep(life.grace / NANOSECONDS))
            if not guest.hung_up.is_set() and life.asked is not None:  # nor is it quarantined
                life.happens(Event.GRACE_OVER)
        await self.clear(guest)

    async def _press(self, guest: RunningGuest) -> bool:
        """Press the power button; False if that cannot be done."""
        with contextlib.suppress(OrchestratorError):
            await guest.monitor.powerdown()
            return True
        return False

    def _force(self, order: Freeze | Kill) -> None:
        """Freeze or kill without the guest's help; one whose launch came to nothing may have no process."""
        name, processes = order.guest, self.launcher.processes
        uuid = self.wanted[name].uuid(self.launcher.files.directory(name))
        if (pid := processes.find(uuid)) is None:
            self.scheduler.gone(name, "its process has gone", self.now())
        elif isinstance(order, Freeze):
            processes.freeze(pid, uuid)
        else:
            processes.kill(pid, uuid)

    def _intent(self, name: str, order: Launch) -> dict[str, Any]:
        guest, cores = self.wanted[name], list(order.placement.held)
        return {"guest": name, "owner": guest.owner, "cores": cores, "specification": guest.specification}

    # Ends.

    async def gone(self, guest: RunningGuest) -> None:
        """Give the cores on of a guest whose process is no more, and clear away what it leaves, once."""
        life = self.lives[guest.name]
        if guest.over or self.guests.get(guest.name, guest) is not guest or isinstance(life.asked, StopGuest):
            return  # an end that was asked for is seen to its end where it was begun
        guest.over, guest.pid = True, None
        self.scheduler.gone(guest.name, life.why, self.now())
        self.go_on()
        with contextlib.suppress(OrchestratorError):  # the next start of this name clears away what is left
            await self.clear(guest)

    async def clear(self, guest: RunningGuest) -> None:
        """End a guest's process, if it is still there, and clear away what it leaves; not that of the one after it."""
        async with self._clearing[guest.name]:
            if not guest.cleared and self.guests.get(guest.name, guest) is guest:
                await self.launcher.clear(guest.domain)
                guest.cleared = True


async def first_of(*acts: Coroutine[Any, Any, object]) -> None:
    """Return when the first of these has ended, and let go of the others."""
    tasks = {asyncio.create_task(act) for act in acts}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

"""Carries out what the scheduler orders, and tells it what became of that. No decision is taken here."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, Protocol

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.life import Life
from orchestrator.core.lifecycle import Event
from orchestrator.core.orders import Happening, Notice, Order
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Request, StopGuest
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.steps import End, Launch, Reseat
from orchestrator.deeds import Deeds, Due
from orchestrator.errors import (
    FailedError,
    OrchestratorError,
    OutcomeUnknownError,
    PinMismatchError,
    RefusedError,
)
from orchestrator.launch import NANOSECONDS, Guest, Launcher, RunningGuest
from orchestrator.ports import Clock
from orchestrator.recorder import Records
from orchestrator.together import first_of

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
    name. `stir` is set when there may be something new to wait for, `settled` when any plan has ended. `clearing`
    is held by whoever ends a process of this name, or makes one.
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
        self.clearing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._deeds = Deeds(self)

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
        due: Due | None = Due(order)
        while due is not None:
            due = await self._see_to(due)

    def _hand_on(self, begun: Due | None) -> Due | None:
        """Give out what is due but for one turn, which is returned; what the scheduler tells can wait for that.

        If that has `begun` already, it is among what is due: the scheduler has said so.
        """
        orders = self.scheduler.orders()
        if begun is not None:
            orders.remove(begun.order)  # a defect if it is not there
        turn = begun or next((Due(order) for order in orders if isinstance(order, Continue)), None)
        for order in orders:
            if turn is None or order is not turn.order:
                self.begin(self._carry_out(order))
        if turn is None:
            self._take_in()
        else:
            asyncio.get_running_loop().call_soon(lambda: self.begin(self._take_in_later()))
        return turn

    async def _take_in_later(self) -> None:
        self._take_in()

    async def _see_to(self, due: Due) -> Due | None:
        order, begun = due.order, None
        at_hand = self.guests.get(order.guest) if isinstance(order, Continue | Halt) else None
        try:
            await self._deeds.act(due)
        except OrchestratorError as error:
            # What was asked of a guest that has ended meanwhile is no failure of the one that has its name now.
            if at_hand is None or not at_hand.over:
                await self._failed(order, error)
        else:
            if isinstance(order, Halt):  # the next guest first, and then all that follows from it
                begun = self._begin(self.scheduler.successor(order))
            self.scheduler.done(order, self.now())
        return self._hand_on(begun)

    def _begin(self, turn: Continue | None) -> Due | None:
        confirmation = None if turn is None else self._deeds.begin(turn)
        return None if turn is None or confirmation is None else Due(turn, confirmation)

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
        async with self.clearing[guest.name]:
            if not guest.cleared and self.guests.get(guest.name, guest) is guest:
                await self.launcher.clear(guest.domain)
                guest.cleared = True

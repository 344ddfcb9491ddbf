"""Plans on their way: taken step by step, each when the one before is confirmed, and taken back on failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.core.acts import Phase
from orchestrator.core.books import Books
from orchestrator.core.orders import Happening, Notice, Order
from orchestrator.core.plan import Plan, aftermath, entry
from orchestrator.core.requests import MoveGuest, PauseGuest, ResizeGuest, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.sharing import Guest
from orchestrator.core.snapshot import Known, Standing, gang_width
from orchestrator.core.steps import (
    Act,
    Change,
    Claim,
    Discharge,
    End,
    Enlist,
    Forget,
    Launch,
    Lock,
    Release,
    Reseat,
    Restore,
    Resume,
    Suspend,
    Unlock,
    Withhold,
)
from orchestrator.core.turnover import Turnover
from orchestrator.errors import UsageError

_UNDER_WAY = {
    StopGuest: Standing.STOPPING,
    PauseGuest: Standing.PAUSING,
    ResumeGuest: Standing.RESUMING,
    MoveGuest: Standing.MOVING,
    ResizeGuest: Standing.RESIZING,
}
_AFTERWARDS = {StartGuest: Standing.ACTIVE, PauseGuest: Standing.PAUSED, ResumeGuest: Standing.ACTIVE}


@dataclass(slots=True)
class _Work:
    """A plan that is being carried out, or taken back because of `failure`.

    `steps` are those left, of which the first may have `begun`; `done` counts the plan's that were taken.
    """

    plan: Plan
    before: Standing | None
    steps: deque[Change | Act]
    begun: bool = False
    done: int = 0
    failure: str = ""


class Works:
    """All plans that are being carried out, at most one for each guest.

    `orders` are the launches and ends that are due; `changed` says that the rotation has to decide anew. Whoever
    reads them resets them. Each call grows with the plan's steps and, where the shared pool changes, with the pool.
    """

    def __init__(self, books: Books, turnover: Turnover) -> None:
        self._books = books
        self._turnover = turnover
        self._works: dict[str, _Work] = {}
        self.orders: list[Order] = []
        self.changed = False

    def __contains__(self, guest: str) -> bool:
        return guest in self._works

    def begin(self, plan: Plan, now: int) -> None:
        """Enter in the books what a plan is about, and take its first steps."""
        request, guest = plan.request, plan.request.guest
        if not plan.steps:
            return
        before = None
        if isinstance(request, StartGuest):
            self._books.enter(guest, entry(request, plan))
        else:
            before = self._books[guest].standing
            self._books.move(guest, _UNDER_WAY[type(request)])
        self._works[guest] = _Work(plan, before, deque(step.do for step in plan.steps))
        self.drive(guest, now)

    def drive(self, guest: str, now: int, done: Order | None = None) -> None:
        """Take the steps of a guest's plan until one has to be waited for; `done` is what was just confirmed."""
        work = self._works.get(guest)
        if work is None:
            return
        while work.steps:
            if not work.begun:
                work.begun = True
                self._take(guest, work.steps[0], now)
            if not self._is_taken(guest, work.steps[0], done):
                return
            work.steps.popleft()
            work.begun = False
            work.done += 1
        del self._works[guest]
        self._conclude(guest, work, now)

    def take_back(self, guest: str, why: str, now: int) -> None:
        """Undo what has been done of a guest's plan, whose present step has failed."""
        work = self._works[guest]
        work.steps, work.begun, work.failure = deque(work.plan.undo(work.done)), False, why
        self.drive(guest, now)

    def leave(self, guest: str, why: str, now: int) -> None:
        """Carry a move out no further whose outcome is not known: the guest keeps all cores where it may be now."""
        work = self._works[guest]
        stopped = any(isinstance(step.do, Suspend) for step in work.plan.steps[: work.done])
        work.steps, work.begun, work.failure = deque([Resume(guest)] if stopped else ()), False, why
        self.drive(guest, now)

    def awaits(self, order: Order) -> bool:
        """Whether this is the act that a guest's plan waits for."""
        work = self._works.get(order.guest)
        return work is not None and work.begun and work.steps[0] == order

    def reseated(self, order: Reseat, now: int) -> None:
        """Note that a guest is on a placement now, whether its plan still waits for that or not."""
        guest, placement = order.guest, order.placement
        self._books.enter(guest, replace(self._books[guest], placement=placement))
        self._turnover.reseated(guest, placement.held, now)
        if guest not in self._works:
            self.shed(guest, now)

    def shed(self, guest: str, now: int) -> None:
        """Give all cores on that a guest keeps beside those of its placement, and claim no others."""
        known = self._books[guest]
        beyond = tuple(sorted(set(known.kept).difference(known.placement.held)))
        if beyond:
            for change in (Release(guest, beyond), Restore(beyond)):
                self._take(guest, change, now)

    def adopt(self, guest: str, known: Known, cores: tuple[int, ...], now: int, *, running: bool) -> None:
        """Put a guest into the books that was found, on these cores if it runs or keeps them.

        Raises UsageError if it cannot be there; the books are as before then.
        """
        self._books.enter(guest, known)
        sharer = None if known.exclusive else self._as_sharer(guest)
        try:
            if known.exclusive or running:
                self._turnover.adopt(guest, cores, now, running=running, sharer=sharer)
            elif sharer is not None and known.standing is Standing.ACTIVE:
                self._turnover.enlist(sharer, now)
        except UsageError:
            self._books.strike(guest)
            raise
        if known.kept:
            self.share(self._books.shared.difference(known.kept), now)
        self.changed = True

    def reclass(self, guest: str, priority: int, now: int) -> None:
        """Put a guest in another priority class; one that has its turn waits for the next one anew."""
        self._books.enter(guest, replace(self._books[guest], priority=priority))
        if not self._books[guest].exclusive:
            self._turnover.reclass(self._as_sharer(guest), now)
            self.changed = True

    def drop(self, guest: str) -> None:
        """Carry a guest's plan out no further, and take nothing of it back; fine if there is none."""
        self._works.pop(guest, None)

    def withdraw(self, guest: str, why: str, now: int) -> None:
        """Let a guest stand still for good, in place of what was going on with it; see `Scheduler.withdraw`."""
        known = self._books[guest]
        if known.standing in (Standing.STOPPING, Standing.QUARANTINED):
            return
        work = self._works.pop(guest, None)
        if work is not None:
            self._turnover.notices.append(Notice(Happening.UNDONE, guest, now, why=why))
            if known.exclusive and not (work.begun and isinstance(work.steps[0], Reseat)):  # else it is told of later
                self.shed(guest, now)
        if known.exclusive:
            self._turnover.handovers.halt(guest, now)
        elif known.standing is not Standing.PAUSED:
            self._turnover.discharge(guest, now)
        self._books.move(guest, Standing.PAUSED)
        self._turnover.notices.append(Notice(Happening.WITHDRAWN, guest, now, why=why))
        self.changed = True

    def gone(self, guest: str, why: str, now: int) -> None:
        """Clear away after a guest whose process has ended; if that was the plan, go on with it."""
        work = self._works.get(guest)
        if work is not None and isinstance(work.steps[0], End):
            self.drive(guest, now, work.steps[0])
            return
        self.drop(guest)
        for change in aftermath(guest, self._books[guest]):
            self._take(guest, change, now)
        self._turnover.notices.append(Notice(Happening.GONE, guest, now, why=why))

    def share(self, cores: frozenset[int], now: int) -> None:
        """Let shared guests have these pool cores only."""
        self.changed = True
        self._books.share(cores)
        self._turnover.share(cores, now)

    def _is_taken(self, guest: str, step: Change | Act, done: Order | None) -> bool:
        phase = self._turnover.handovers.phase(guest)
        match step:
            case Launch() | Reseat() | End():
                return done == step
            case Claim():
                return not self._turnover.handovers.is_claiming(guest)
            case Lock():
                return phase is Phase.HELD
            case Resume():
                return phase is Phase.RUNNING
            case Suspend() | Discharge():
                return phase in (None, Phase.HELD)
            case _:
                return True

    def _conclude(self, guest: str, work: _Work, now: int) -> None:
        if work.failure and work.before is None:
            self._books.strike(guest)
        elif guest in self._books:
            request = work.plan.request
            standing = work.before if work.failure else _AFTERWARDS.get(type(request), work.before)
            if isinstance(request, StartGuest) and request.staged:
                standing = Standing.PAUSED
            self._books.move(guest, standing or Standing.ACTIVE)
        what = Happening.UNDONE if work.failure else Happening.DONE
        self._turnover.notices.append(Notice(what, guest, now, why=work.failure))

    def _take(self, guest: str, step: Change | Act, now: int) -> None:
        handovers = self._turnover.handovers
        self.changed = True
        match step:
            case Launch() | Reseat() | End():
                self.orders.append(step)
            case Resume():
                handovers.resume(guest, now)
            case Suspend():
                handovers.halt(guest, now)
            case _:
                self._change(guest, step, now)

    def _change(self, guest: str, step: Change, now: int) -> None:
        turnover, books = self._turnover, self._books
        match step:
            case Withhold(cores):
                self._keep(guest, {*books[guest].kept, *cores})
                self.share(books.shared.difference(cores), now)
            case Restore(cores):
                self._keep(guest, set(books[guest].kept).difference(cores))
                self.share(books.shared.union(books.unkept(cores)), now)
            case Claim(_, cores):
                turnover.handovers.claim(guest, cores, now)
            case Release(_, cores):
                turnover.handovers.release(guest, cores, now)
            case Lock(_, cores):
                turnover.handovers.lock(guest, cores, now)
            case Unlock():
                turnover.gone(guest, now)
            case Enlist():
                turnover.enlist(self._as_sharer(guest), now)
            case Discharge():
                turnover.discharge(guest, now)
            case Forget():
                turnover.forget(guest, now)
                books.strike(guest)

    def _keep(self, guest: str, cores: Iterable[int]) -> None:
        self._books.enter(guest, replace(self._books[guest], kept=tuple(sorted(cores))))

    def _as_sharer(self, guest: str) -> Guest:
        known = self._books[guest]
        return Guest(
            id=guest,
            owner=known.owner,
            width=gang_width(known.spec, self._books.units),
            weight=known.spec.weight,
            priority=known.priority,
        )

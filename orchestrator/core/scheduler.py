"""The scheduler's mind as one state machine without effects: requests, confirmations and time go in, acts come out.

Whoever has the effects (the engine; the simulator) does what `acts` returns, in any order in which acts of one guest
keep theirs, and says what became of each: `done`, `failed`, or `gone` for a process that is no more. After each call
there may be new acts and `notices`, and `next_event` tells when to call `tick` if nothing happens before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestrator.core.account import Account, Moment
from orchestrator.core.acts import Continue, Halt, Phase
from orchestrator.core.books import Books
from orchestrator.core.explain import Explanation, Timetable, explain
from orchestrator.core.foresight import foresee
from orchestrator.core.locks import LockState
from orchestrator.core.orders import Freeze, Happening, Kill, Notice, Order
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Plan, Request, StartGuest, decide
from orchestrator.core.policy import Policy
from orchestrator.core.sharing import Turn, Wait
from orchestrator.core.snapshot import Known, Snapshot, Standing
from orchestrator.core.steps import Launch, Reseat
from orchestrator.core.timekeeping import Overdue, Timekeeper
from orchestrator.core.topology import Topology
from orchestrator.core.turnover import Turnover
from orchestrator.core.works import Works


class Scheduler:
    """Who runs where and when on one host; the only writer of its locks, rotation and books.

    Calls are made in order of time, `now` in nanoseconds of one monotonic clock. `decisions` counts how often it was
    decided anew whose turn it is; while that stays, so does `next_event`, but for orders that are overdue.

    Growth: a request grows with the guests and the host's CPUs, a tick as `Rotation.tick`, a confirmation with the
    cores that change hands.
    """

    def __init__(
        self,
        topology: Topology,
        policy: Policy,
        weights: Mapping[str, int] | None = None,
        account: Account | None = None,
    ) -> None:
        """Begin with an idle pool; `weights` are those of owners, and those of the policy where there is none."""
        self._policy = policy.rotation
        self._rules, self._weights = policy, dict(weights or {})
        self._books = Books(topology, policy)
        self._turnover = Turnover(self._books.pool, self._books.groups, policy.rotation, {})
        account = account or Account(policy.quotas.share_window)
        self._timekeeper = Timekeeper(policy, self._books, self._turnover, account, self._why)
        self.decisions = 0
        self._works = Works(self._books, self._turnover)
        self._graces: deque[tuple[int, str]] = deque()
        self._orders: list[Freeze | Kill] = []

    # What goes in.

    def request(self, request: Request, now: int) -> Plan | Refusal:
        """Decide about a request, and begin to carry the plan out. Raises UsageError as `plan.decide`."""
        if isinstance(request, StartGuest) and request.priority is None:
            request = replace(request, priority=self._rules.priority(request.owner))
        outcome = self.would(request, now)
        if isinstance(outcome, Plan):
            if isinstance(request, StartGuest):
                self._weigh(request.owner)
                self._timekeeper.account.started(request.owner, request.guest, now)
            self._works.begin(outcome, now)
            self._settle(now)
        return outcome

    def would(self, request: Request, now: int) -> Plan | Refusal:
        """Return what would be decided about a request, and begin nothing. Raises UsageError as `plan.decide`."""
        return decide(self.snapshot(now), request)

    def foresee(self, requests: Iterable[StartGuest], now: int) -> list[Plan | Refusal]:
        """Return what would be decided about these starts, one after the other, and begin nothing."""
        return foresee(self.snapshot(now), requests)

    def change(self, policy: Policy, now: int) -> None:
        """Go by another policy from now on; who was told something already has no longer than it says now.

        Its cores and the pieces in which they are given are those of the policy before: `policy_change.take_over` sees
        to that. What runs goes on, also where the new policy would refuse it. Growth: n log n in the guests.
        """
        self._policy, self._rules = policy.rotation, policy
        self._books.set_policy(policy)
        self._timekeeper.reload(policy)
        for owner in sorted({known.owner for _, known in self._books.items()}):
            self._weigh(owner)
        for guest, known in self._books.items():
            if known.priority != policy.priority(known.owner):
                self._works.reclass(guest, policy.priority(known.owner), now)
        self._turnover.rotation.set_rules(policy.rotation.rules(), now)
        self._turnover.handovers.set_limit(policy.rotation.confirm, now)
        self._graces = deque((min(by, now + policy.rotation.grace), guest) for by, guest in self._graces)
        self._turnover.notices.append(Notice(Happening.POLICY, "", now))
        self._works.changed = True
        self._settle(now)

    def adopt(self, known: Known, cores: tuple[int, ...], now: int, *, running: bool) -> None:
        """Take over a guest that was found, as after a restart; exclusive guests first, for shared ones give way.

        `cores` are whole units on which a running guest is, or all that an exclusive one keeps. Raises UsageError if it
        cannot be there, since another is or they are not the pool's: stop a shared one, and it can wait for a turn.
        """
        self._weigh(known.owner)
        known = replace(known, priority=self._rules.priority(known.owner))
        self._works.adopt(known.spec.name, known, cores, now, running=running)
        self._timekeeper.adopted(known.spec.name, running=running, now=now)
        self._settle(now)

    def tick(self, now: int) -> None:
        """Let time pass."""
        for guest in self._turnover.handovers.overdue(now):
            self._quarantine(guest, f"it did not confirm within {self._policy.confirm}", now)
        while self._graces and self._graces[0][0] <= now:
            _, guest = self._graces.popleft()
            if self._is_quarantined(guest):
                self._orders.append(Kill(guest))
        self._works.changed = True
        self._settle(now)

    def done(self, order: Order, now: int) -> None:
        """Note that what was wanted has been done and confirmed. What comes too late to matter changes nothing."""
        guest = order.guest
        if guest not in self._books or self._is_quarantined(guest):
            return
        match order:
            case Continue():
                self._turnover.continued(order, now)
            case Halt():
                self._turnover.halted(order, now)
            case Launch():
                self._turnover.handovers.launched(guest, order.placement.held)
            case Reseat():
                self._works.reseated(order, now)
        if guest in self._works:
            self._works.drive(guest, now, order)
        self._settle(now)

    def successor(self, order: Halt) -> Continue | None:
        """Return an order that `done` would give, were it called now: to let the next guest run where it is pinned.

        Whoever is in a hurry may obey it just before that call. None where there is no such order.
        """
        guest = order.guest
        if guest not in self._books or self._is_quarantined(guest):
            return None
        return self._turnover.handovers.successor(guest)

    def failed(self, order: Order, why: str, now: int, *, unknown: bool = False) -> None:
        """Note that an act has failed, or that its outcome is `unknown`.

        A launch or a move that has failed is undone with its plan; a guest whose move may or may not have been keeps
        the cores of both places; any other guest that did not obey is quarantined.
        """
        guest = order.guest
        if isinstance(order, Reseat):
            self._not_reseated(order, why, now, unknown=unknown)
        elif isinstance(order, Launch) and not unknown and guest in self._works:
            self._works.take_back(guest, why, now)
        elif not isinstance(order, Freeze | Kill):
            self._quarantine(guest, why, now)
        self._settle(now)

    def withdraw(self, guest: str, why: str, now: int) -> None:
        """Let a guest stand still from now on, which is in trouble, whatever was going on with it.

        A plan under way is carried out no further. The guest counts as paused: a shared one gives its cores on, an
        exclusive one keeps its own. One that is being ended, or that is quarantined, is left to that.
        """
        if guest in self._books:
            self._works.withdraw(guest, why, now)
            self._settle(now)

    def gone(self, guest: str, why: str, now: int) -> None:
        """Note that a guest's process is no more; its cores are given on. Fine if the guest is not known."""
        if guest in self._books:
            self._works.gone(guest, why, now)
            self._settle(now)

    # What comes out.

    def orders(self) -> list[Order]:
        """Return what has to be done since the last call."""
        orders: list[Order] = [*self._works.orders, *self._orders, *self._turnover.handovers.acts()]
        self._works.orders.clear()
        self._orders.clear()
        return orders

    def notices(self) -> list[Notice]:
        """Return what has happened since the last call."""
        self._timekeeper.follow()
        notices, self._turnover.notices = self._turnover.notices, []
        self._timekeeper.taken_away()
        return notices

    def keep_quotas(self, moment: Moment) -> tuple[list[Overdue], int]:
        """Warn, throttle and release by the quotas of time; return who is to be stopped, and when to come again."""
        found = self._timekeeper.look(moment)
        self._works.changed = True
        self._settle(moment.monotonic)
        return found

    @property
    def account(self) -> Account:
        """What everybody has used of time, to be kept over a restart."""
        return self._timekeeper.account

    def next_event(self) -> int | None:
        """Return when to `tick` next, if nothing else comes before; None if there is no need."""
        earliest = self._turnover.next_decision
        deadline = self._turnover.handovers.deadline()
        if earliest is None or (deadline is not None and deadline < earliest):
            earliest = deadline
        if self._graces and (earliest is None or self._graces[0][0] < earliest):
            earliest = self._graces[0][0]
        return earliest

    def snapshot(self, now: int) -> Snapshot:
        """Return the present state as decisions see it. Growth: linear in the guests."""
        return self._books.snapshot(now, self._timekeeper.spent(now))

    def whole_units(self, cores: Iterable[int]) -> tuple[int, ...]:
        """Return all cores of the units that these touch; none if one of them is not the pool's."""
        return self._books.whole_units(cores)

    def knows(self, guest: str) -> bool:
        """Whether a guest is in the books."""
        return guest in self._books

    def phase(self, guest: str) -> Phase | None:
        """Return where a guest is between two turns; None if it neither has cores nor is about to."""
        return self._turnover.handovers.phase(guest)

    def locks(self) -> LockState:
        """Return who holds and who awaits which cores. Growth: n log n in the holds."""
        return self._turnover.handovers.locks()

    def turns(self) -> tuple[Turn, ...]:
        """Return the turns that shared guests take, as decided, soonest over first. Growth: n log n."""
        return self._turnover.rotation.turns()

    def waits(self, now: int) -> tuple[Wait, ...]:
        """Return the shared guests that wait, in the order in which they are served. Growth: n log n."""
        return self._turnover.rotation.waits(now)

    def explain(self, guest: str, now: int) -> Explanation:
        """Say why a guest waits or where it runs. Raises UsageError if it is not known. Growth: n log n."""
        waits = self.waits(now)
        waiting = any(wait.guest == guest for wait in waits)
        timetable = Timetable(
            turns=self.turns(),
            waits=waits,
            locks=self.locks(),
            rivals=self._turnover.rotation.holders(guest, now) if waiting else (),
        )
        return explain(self.snapshot(now), timetable, guest)

    def _weigh(self, owner: str) -> None:
        """Have an owner take part by his weight."""
        self._turnover.rotation.weigh_owner(owner, self._weights.get(owner, self._rules.weight(owner)))

    def _why(self, guest: str, now: int) -> str:
        return "; ".join(self.explain(guest, now).reasons)

    # Guests that do not obey.

    def _not_reseated(self, order: Reseat, why: str, now: int, *, unknown: bool) -> None:
        guest = order.guest
        if self._works.awaits(order):
            (self._works.leave if unknown else self._works.take_back)(guest, why, now)
        elif guest in self._books and not self._is_quarantined(guest) and guest not in self._works and not unknown:
            self._works.shed(guest, now)  # it was withdrawn meanwhile

    def _is_quarantined(self, guest: str) -> bool:
        return guest in self._books and self._books[guest].standing is Standing.QUARANTINED

    def _quarantine(self, guest: str, why: str, now: int) -> None:
        """Keep a guest's cores from everybody until its process is gone, and see to that."""
        if guest not in self._books or self._is_quarantined(guest):
            return
        self._works.drop(guest)
        known, cores = self._books[guest], self._turnover.handovers.cores(guest)
        kept = tuple(sorted({*cores, *known.kept}))
        self._books.enter(guest, replace(known, standing=Standing.QUARANTINED, kept=kept))
        self._turnover.forget(guest, now)
        self._works.share(self._books.shared.difference(kept), now)
        self._orders.append(Freeze(guest))
        self._graces.append((now + self._policy.grace, guest))
        self._turnover.notices.append(Notice(Happening.QUARANTINED, guest, now, kept, why=why))

    def _settle(self, now: int) -> None:
        """Decide anew as long as something has changed."""
        handovers, works = self._turnover.handovers, self._works
        while works.changed or handovers.has_granted:
            works.changed = False
            self.decisions += 1
            self._turnover.tick(now)
            for guest in handovers.granted():
                works.drive(guest, now)

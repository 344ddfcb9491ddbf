"""A host on a virtual clock: the scheduler's own decisions, carried out by a hypervisor that only takes time.

Time jumps from one event to the next, so nothing here waits. Chance comes from the scenario's seed alone: the same
scenario always gives the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from random import Random

from orchestrator.core.account import Moment
from orchestrator.core.acts import Continue, Halt
from orchestrator.core.durations import Duration, Spread
from orchestrator.core.orders import Freeze, Happening, Kill, Order
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import StartGuest, StopGuest
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.steps import End, Launch, Reseat
from orchestrator.simulator.scenario import Arrival, Costs, Failure, FailureKind, Scenario, arrivals
from orchestrator.simulator.scribe import Outcome, Scribe

DAY = Duration.parse("1 d")

PROGRESS = 1000
"""Progress is told so often over the whole of a simulation, at most."""


def simulate(scenario: Scenario, progress: Callable[[int], None] | None = None) -> Outcome:
    """Let a scenario happen; `progress` is told the simulated time now and then, in nanoseconds.

    Growth: one decision for each turn, arrival and departure, as `Scheduler` tells of those.
    """
    world = _World(scenario)
    mark = step = max(1, scenario.duration // PROGRESS)
    while (now := world.advance()) is not None:
        if progress and now >= mark:
            progress(now)
            mark = now + step
    return world.finish()


class _FakeHypervisor:
    """Says how long each act takes, and which are never confirmed."""

    def __init__(self, costs: Costs, seed: int) -> None:
        self._costs = costs
        self._random = Random(seed).random
        self.hanging: set[str] = set()

    def takes(self, order: Order) -> int | None:
        """Return after how many nanoseconds an act is confirmed; None if it never is."""
        costs = self._costs
        match order:
            case Continue():
                return self._draw(costs.resume) + (self._draw(costs.repin) if order.moved else 0)
            case Halt():
                return None if order.guest in self.hanging else self._draw(costs.stop)
            case Launch():
                return self._draw(costs.start)
            case Reseat():
                return self._draw(costs.repin)
            case End() | Kill():
                return self._draw(costs.stop)
            case Freeze():
                return None

    def _draw(self, spread: Spread) -> int:
        least, most = spread
        return least + int(self._random() * (most - least))


class _World:
    """The host, its scheduler and those who come and go; `advance` lets happen what happens at the next moment.

    Confirmations are by far the most frequent events and have a heap of their own, without a closure for each.
    """

    def __init__(self, scenario: Scenario) -> None:
        topology = scenario.host.topology(scenario.policy)
        weights = {owner.name: owner.weight for owner in scenario.owners}
        self._end = int(scenario.duration)
        self._confirm = int(scenario.policy.rotation.confirm)
        self._now = 0
        self._scheduler = Scheduler(topology, scenario.policy, weights)
        self._hypervisor = _FakeHypervisor(scenario.costs, scenario.seed)
        self._scribe = Scribe(scenario, topology)
        self._confirmations: list[tuple[int, int, Order]] = []
        self._stories: list[tuple[int, int, Callable[[], None]]] = []
        self._entered = 0
        self._coming = arrivals(scenario)
        self._leaving: set[str] = set()
        self._expect_arrival()
        if scenario.policy.counts_time:
            self._plan(0, self._keep_quotas)
        for failure in scenario.failures:
            self._plan(failure.at, partial(self._fail, failure))

    def advance(self) -> int | None:
        """Let everything happen up to the next moment at which something is decided; None if that is after the end."""
        decision = self._scheduler.next_event()
        story = self._stories[0][0] if self._stories else None
        horizon = min((moment for moment in (decision, story) if moment is not None), default=self._end + 1)
        # An order that is given meanwhile cannot be overdue before the limit.
        limit = min(horizon, self._end, self._now + self._confirm)
        if self._confirm_until(limit) or limit < min(horizon, self._end):
            return self._now
        if horizon > self._end:
            return None
        self._now = max(self._now, horizon)
        while self._stories and self._stories[0][0] <= self._now:
            heappop(self._stories)[2]()
        if decision is not None and decision <= self._now:
            self._scheduler.tick(self._now)
        self._follow()
        return self._now

    def _confirm_until(self, limit: int) -> bool:
        """Let confirmations come until `limit`, or return True as soon as one has led to a new decision."""
        confirmations, scheduler = self._confirmations, self._scheduler
        decisions = scheduler.decisions
        while confirmations and confirmations[0][0] <= limit:
            self._now, _, order = heappop(confirmations)
            if isinstance(order, Kill):
                scheduler.gone(order.guest, "killed", self._now)
            else:
                scheduler.done(order, self._now)
            self._follow()
            if scheduler.decisions != decisions:
                return True
        self._now = max(self._now, limit)
        return False

    def finish(self) -> Outcome:
        """Return what has come of it."""
        open_waits = [(wait.guest, wait.since, wait.latest) for wait in self._scheduler.waits(self._end)]
        return self._scribe.finish(open_waits)

    def _follow(self) -> None:
        """Do what the scheduler wants, and write down what it tells."""
        for order in self._scheduler.orders():
            takes = self._hypervisor.takes(order)
            if takes is not None:
                self._entered += 1
                heappush(self._confirmations, (self._now + takes, self._entered, order))
                if isinstance(order, Continue):
                    self._scribe.hand_over(order, self._now, self._now + takes)
        for notice in self._scheduler.notices():
            self._scribe.note(notice)
            if notice.what is Happening.DONE and notice.guest in self._leaving:
                self._leave(notice.guest)

    def _plan(self, at: int, story: Callable[[], None]) -> None:
        self._entered += 1
        heappush(self._stories, (at, self._entered, story))

    def _expect_arrival(self) -> None:
        arrival = next(self._coming, None)
        if arrival is not None:
            self._plan(arrival.at, partial(self._arrive, arrival))

    def _arrive(self, arrival: Arrival) -> None:
        request = StartGuest(spec=arrival.spec, owner=arrival.owner, priority=arrival.priority)
        outcome = self._scheduler.request(request, self._now)
        self._scribe.arrived(arrival, outcome if isinstance(outcome, Refusal) else None)
        if arrival.leaves is not None and not isinstance(outcome, Refusal):
            self._plan(arrival.leaves, partial(self._leave, arrival.guest))
        self._expect_arrival()

    def _leave(self, guest: str) -> None:
        """End a guest; one that is just being started leaves as soon as it has been."""
        self._leaving.discard(guest)
        if not self._scheduler.knows(guest):
            return
        if isinstance(self._scheduler.request(StopGuest(guest), self._now), Refusal):
            self._leaving.add(guest)

    def _keep_quotas(self) -> None:
        """Have everybody keep to his quotas of time; the scenario begins at midnight."""
        moment = Moment(self._now, "", self._now, self._now // DAY, self._now % DAY)
        overdue, again = self._scheduler.keep_quotas(moment)
        for one in overdue:
            self._leave(one.guest)
        self._plan(again, self._keep_quotas)

    def _fail(self, failure: Failure) -> None:
        if failure.kind is FailureKind.CRASH:
            self._scheduler.gone(failure.guest, "crashed", self._now)
        else:
            self._hypervisor.hanging.add(failure.guest)

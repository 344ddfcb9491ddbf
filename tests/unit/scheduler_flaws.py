"""Schedulers with one flaw each, which the checks must find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.handover import Handovers
from orchestrator.core.locks import Busy, Hold, Locks
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import MoveGuest, Plan, Request
from orchestrator.core.policy import Policy
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.seats import Seats
from orchestrator.core.sharing import Rules
from orchestrator.core.steps import Release
from orchestrator.core.topology import Topology
from tests.unit.rotation_flaws import BackfillsForEver


class _OpenLocks(Locks):
    def could_acquire(self, holder: str, cores: Iterable[int]) -> bool:  # noqa: ARG002
        return True

    def acquire(self, holder: str, cores: Iterable[int], now: int) -> Hold | Busy:
        for core in cores:
            hold = self.hold_of(core)
            if hold is not None:
                self.release(hold)
        return super().acquire(holder, cores, now)


class NeverAsksTheLocks(Scheduler):
    """Lets the next guest run before the last has confirmed its stop."""

    def __init__(self, topology: Topology, policy: Policy, weights: Mapping[str, int] | None = None) -> None:
        super().__init__(topology, policy, weights)
        self._turnover.handovers._locks = _OpenLocks(topology.pool)


class Starves(Scheduler):
    """Lets whoever fits run before a wide gang, for ever."""

    def __init__(self, topology: Topology, policy: Policy, weights: Mapping[str, int] | None = None) -> None:
        super().__init__(topology, policy, weights)
        self._turnover.rotation = BackfillsForEver(policy.rotation.rules(), self._books.groups)


class ForetellsOnHeldCores(Scheduler):
    """Takes the first that waits for one core of several for the next to run."""

    def successor(self, order: Halt) -> Continue | None:
        handovers = self._turnover.handovers
        for core in handovers.cores(order.guest):
            heir = handovers._locks.heir(core)
            if heir is not None:
                seat = handovers._seats[heir]
                return Continue(heir, seat.cores, False, handovers._locks._last_token + 1)
        return None


class ForgetsCores(Scheduler):
    """Does not note that a process has gone."""

    def gone(self, guest: str, why: str, now: int) -> None:
        pass


class _Hasty(Handovers):
    def is_claiming(self, guest: str) -> bool:  # noqa: ARG002
        return False


class MovesWithoutLocks(Scheduler):
    """Moves a guest to cores that it has not got yet."""

    def __init__(self, topology: Topology, policy: Policy, weights: Mapping[str, int] | None = None) -> None:
        super().__init__(topology, policy, weights)
        self._turnover.handovers = _Hasty(Locks(topology.pool), policy.rotation.confirm)


class LeavesTooEarly(Scheduler):
    """Gives one of a guest's old cores on although it is told only that it is to move."""

    def request(self, request: Request, now: int) -> Plan | Refusal:
        outcome = super().request(request, now)
        if isinstance(request, MoveGuest) and isinstance(outcome, Plan):
            for lock in outcome.locks:
                if isinstance(lock, Release):
                    self._turnover.handovers.release(lock.guest, lock.cores[:1], now)
        return outcome


class LetsOldTurnsLast(Scheduler):
    """Takes a new policy over for turns that begin, and leaves those under way as long as they were."""

    def __init__(self, topology: Topology, policy: Policy, weights: Mapping[str, int] | None = None) -> None:
        super().__init__(topology, policy, weights)
        rotation = self._turnover.rotation
        seats = rotation._seats = _Lenient(
            policy.rotation.rules(), rotation._seats.units, rotation._order, self._turnover.handovers.awaits_others
        )
        seats.free = seats.units.free.bit_count()


class _Lenient(Seats):
    def set_rules(self, rules: Rules, now: int) -> None:  # noqa: ARG002
        self._obey(rules)


class CountsTurnsFromWhenTheyAreDecided(Scheduler):
    """Takes a turn for over though whoever was there before has not stopped as yet."""

    def __init__(self, topology: Topology, policy: Policy, weights: Mapping[str, int] | None = None) -> None:
        super().__init__(topology, policy, weights)
        self._turnover.rotation._seats._is_late = lambda _: False

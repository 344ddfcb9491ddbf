"""Core locks: one for each pool core, taken by a gang together or not at all.

Nothing here decides who gets a core; that is `rotation` and `placement`. This is the ledger they write
into, and the last word on rule two of the house: one core, one guest. Times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.core.pool import Pool
from orchestrator.errors import UsageError


class Hold(NamedTuple):
    """A gang's hold on its cores, ascending, since when, and the fencing token that proves which hold it is.

    Tokens only grow: whoever comes with a smaller one than a core's present hold acts late.
    """

    holder: str
    cores: tuple[int, ...]
    since: int
    token: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Why a gang got nothing: each core in the way, ascending, with who holds it or waits for it first."""

    cores: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class LockState:
    """All locks at one moment, to store, compare and restore.

    `holds` are in the order of their tokens, `waiters` pair each waiter with its cores, first come first.
    """

    holds: tuple[Hold, ...] = ()
    waiters: tuple[tuple[str, tuple[int, ...]], ...] = ()
    last_token: int = 0


class Locks:
    """The locks of a pool's cores.

    Mutable, because a copy of a thousand locks for each hand-over would cost more than the decision behind it;
    it changes only through `acquire`, `extend`, `shrink`, `release`, `wait` and `leave`, and `snapshot` gives its
    value. Its one writer is the scheduler. Each call grows with the cores it names, none with the cores there are.
    """

    def __init__(self, pool: Pool, state: LockState = LockState()) -> None:
        """Begin where `state` ended. Raises UsageError if two of its holds share a core."""
        self._pool = pool
        self._by_core: dict[int, Hold] = {}
        self._waits: dict[str, tuple[int, ...]] = {}
        # A dict keeps the order of arrival and forgets a waiter at once; its values mean nothing.
        self._queues: dict[int, dict[str, None]] = {}
        self._last_token = state.last_token
        for hold in state.holds:
            twice = [core for core in sorted(pool.check(hold.cores)) if core in self._by_core]
            if twice:
                raise UsageError(
                    f"core {twice[0]}: stored as held by {self._by_core[twice[0]].holder} and {hold.holder}"
                )
            self._by_core |= dict.fromkeys(hold.cores, hold)
        for waiter, cores in state.waiters:
            self.wait(waiter, cores)

    def acquire(self, holder: str, cores: Iterable[int], now: int) -> Hold | Busy:
        """Take the locks of all `cores`, in ascending order, or none of them.

        A core is in the way if anybody holds it, the asker itself included, or if somebody else has waited for
        it longer. Who gets its cores waits no more. Raises ReservedCoreError for a core outside the pool, and
        UsageError if no core is named.
        """
        wanted = tuple(sorted(set(cores)))
        if not self._pool.cores.issuperset(wanted):
            self._pool.check(wanted)
        if not wanted:
            raise UsageError(f"{holder}: a gang needs at least one core")
        if not self.could_acquire(holder, wanted):
            others = ((core, self._before(holder, core)) for core in wanted)
            return Busy(tuple((core, other) for core, other in others if other is not None))
        self.leave(holder)
        self._last_token += 1
        hold = Hold(holder, wanted, now, self._last_token)
        self._by_core |= dict.fromkeys(wanted, hold)
        return hold

    def could_acquire(self, holder: str, cores: Iterable[int]) -> bool:
        """Whether `acquire` would give these cores now."""
        by_core, queues = self._by_core, self._queues
        for core in cores:  # noqa: SIM110 (a generator would cost more than what it does)
            if core in by_core or (core in queues and next(iter(queues[core])) != holder):
                return False
        return True

    def heir(self, core: int) -> str | None:
        """Return who has waited longest for a core, whoever holds it."""
        queue = self._queues.get(core)
        return next(iter(queue)) if queue else None

    def would_acquire(self, heir: str, cores: Iterable[int], hold: Hold) -> Hold | None:
        """Return the hold that `acquire` would give at the moment at which another one is released; None if none."""
        by_core, queues = self._by_core, self._queues
        for core in cores:
            if by_core.get(core, hold) is not hold or next(iter(queues[core])) != heir:
                return None
        return Hold(heir, tuple(cores), hold.since, self._last_token + 1)

    def release(self, hold: Hold) -> bool:
        """Give all cores of a hold back; False, and nothing changes, if it is not current any more."""
        if not self.is_current(hold):
            return False
        for core in hold.cores:
            del self._by_core[core]
        return True

    def extend(self, hold: Hold, cores: Iterable[int]) -> Hold | Busy:
        """Take the locks of further cores into a hold that is current, all or none; as `acquire` otherwise."""
        more = self.acquire(hold.holder, cores, hold.since)
        if isinstance(more, Busy):
            return more
        return self._replace(hold, (*hold.cores, *more.cores))

    def shrink(self, hold: Hold, cores: Iterable[int]) -> Hold:
        """Keep these cores of a hold that is current, at least one, and give the others back."""
        kept = frozenset(cores).intersection(hold.cores)
        if not kept or not self.is_current(hold):
            raise UsageError(f"{hold.holder}: of a hold that stands at least one core is kept; `release` ends it")
        for core in kept.symmetric_difference(hold.cores):
            del self._by_core[core]
        return self._replace(hold, kept)

    def is_current(self, hold: Hold) -> bool:
        """Whether this very hold still stands; a former holder that acts late is told no."""
        return self._by_core.get(hold.cores[0]) == hold

    def hold_of(self, core: int) -> Hold | None:
        """Return who holds a core."""
        return self._by_core.get(core)

    def holds(self, holder: str) -> tuple[Hold, ...]:
        """Return a guest's holds by token. Growth: linear in the cores held."""
        return tuple(hold for hold in self._holds() if hold.holder == holder)

    def wait(self, waiter: str, cores: Iterable[int]) -> None:
        """Queue for all `cores` at once, behind who waits already; a waiter that waits anew gives up its old place.

        Queueing for all at once keeps every core's queue in one common order, so two gangs cannot wait for each
        other. Raises ReservedCoreError for a core outside the pool.
        """
        wanted = tuple(sorted(self._pool.check(cores)))
        self.leave(waiter)
        self._waits[waiter] = wanted
        for core in wanted:
            self._queues.setdefault(core, {})[waiter] = None

    def leave(self, waiter: str) -> None:
        """Stop waiting; fine if it does not wait."""
        for core in self._waits.pop(waiter, ()):
            queue = self._queues[core]
            del queue[waiter]
            if not queue:
                del self._queues[core]

    def next_for(self, core: int) -> str | None:
        """Return who is to have a core next: who waits for it longest, if it is free and anybody does."""
        if core in self._by_core or core not in self._queues:
            return None
        return next(iter(self._queues[core]))

    def waiters(self, core: int) -> tuple[str, ...]:
        """Return who waits for a core, first come first."""
        return tuple(self._queues.get(core, ()))

    def snapshot(self) -> LockState:
        """Return the present state as a value. Growth: n log n in the holds."""
        return LockState(tuple(self._holds()), tuple(self._waits.items()), self._last_token)

    def _replace(self, hold: Hold, cores: Iterable[int]) -> Hold:
        """Have a hold on these cores, all of which are its holder's, in place of those that it had."""
        self._last_token += 1
        new = Hold(hold.holder, tuple(sorted(cores)), hold.since, self._last_token)
        self._by_core |= dict.fromkeys(new.cores, new)
        return new

    def _holds(self) -> list[Hold]:
        return sorted(set(self._by_core.values()), key=lambda hold: hold.token)

    def _before(self, asker: str, core: int) -> str | None:
        hold = self._by_core.get(core)
        if hold is not None:
            return hold.holder
        first = next(iter(self._queues.get(core, ())), asker)
        return None if first == asker else first

"""The scheduler's books: which guests there are, how each stands, and which cores shared guests may have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from orchestrator.core.account import TimeUsed
from orchestrator.core.policy import Policy
from orchestrator.core.snapshot import Known, Snapshot, Standing, gang_width, unit_groups
from orchestrator.core.topology import Topology
from orchestrator.core.units import Units

_NOTHING: Mapping[str, TimeUsed] = MappingProxyType({})


class Books:
    """Mutable, with one writer, the scheduler; `snapshot` gives their value.

    Changing an entry takes constant time, changing the shared pool grows with the pool.
    """

    def __init__(self, topology: Topology, policy: Policy) -> None:
        self._topology = topology
        self._policy = policy
        self.pool = topology.pool
        self.groups = unit_groups(topology, split_cores=policy.cores.split_cores)
        self.units = Units(self.groups)
        self.share(self.pool.cores)
        self._guests: dict[str, Known] = {}
        self._gangs: dict[int, int] = {}

    def __contains__(self, guest: str) -> bool:
        return guest in self._guests

    def __getitem__(self, guest: str) -> Known:
        return self._guests[guest]

    def get(self, guest: str) -> Known | None:
        """Return a guest's entry, if there is one."""
        return self._guests.get(guest)

    def enter(self, guest: str, known: Known) -> None:
        """Put in a guest, or its new entry."""
        self.strike(guest)
        self._guests[guest] = known
        if known.takes_turns:
            need = self.need(known)
            self._gangs[need] = self._gangs.get(need, 0) + 1

    def throttle(self, guest: str, why: str) -> None:
        """Note why a guest gets no turns; empty if it does again."""
        self._guests[guest] = replace(self._guests[guest], throttled=why)

    def items(self) -> list[tuple[str, Known]]:
        """Return all guests with their names. Growth: linear."""
        return list(self._guests.items())

    def strike(self, guest: str) -> None:
        """Forget a guest; fine if it is not there."""
        known = self._guests.pop(guest, None)
        if known is not None and known.takes_turns:
            need = self.need(known)
            self._gangs[need] -= 1
            if not self._gangs[need]:
                del self._gangs[need]

    def move(self, guest: str, standing: Standing) -> None:
        """Note how a guest stands now."""
        self.enter(guest, replace(self._guests[guest], standing=standing))

    def set_policy(self, policy: Policy) -> None:
        """Judge by another policy from now on, of which the units are the same."""
        self._policy = policy

    def share(self, cores: frozenset[int]) -> None:
        """Note which cores shared guests may have."""
        self.shared = cores
        self.usable = self.units.within(cores)

    def unkept(self, cores: Iterable[int]) -> set[int]:
        """Return those of these cores that no guest keeps. Growth: linear in the guests.

        Two can keep one core: who is quarantined is on it, and an exclusive guest waits for it.
        """
        return set(cores).difference(*(known.kept for known in self._guests.values()))

    def whole_units(self, cores: Iterable[int]) -> tuple[int, ...]:
        """Return all cores of the units that these touch; none if one of them is not the pool's. Growth: the pool."""
        wanted = frozenset(cores)
        touched = [group for group in self.groups if not wanted.isdisjoint(group)]
        found = tuple(sorted(core for group in touched for core in group))
        return found if wanted.issubset(found) else ()

    def need(self, known: Known) -> int:
        """Return how many units a shared guest holds in its turn."""
        return self.units.need(gang_width(known.spec, self.units))

    def snapshot(self, now: int, spent: Mapping[str, TimeUsed] = _NOTHING) -> Snapshot:
        """Return the books as a value. Growth: linear in the guests."""
        return Snapshot(
            now=now,
            topology=self._topology,
            policy=self._policy,
            pool=self.pool,
            units=self.units,
            shared=self.shared,
            usable=self.usable,
            guests=dict(self._guests),
            gangs=dict(self._gangs),
            spent=spent,
        )

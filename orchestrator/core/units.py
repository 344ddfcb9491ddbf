"""The units in which shared guests are given cores: single cores, or physical cores with all their SMT siblings.

A unit is never split, so two guests never meet on one physical core. Sets of units are bit masks, bit i for the
i-th unit in ascending order of its first core: a word operation handles 30 of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.cpulist import format_cpulist
from orchestrator.errors import UsageError


class Units:
    """Which units there are, which of them shared guests may have now, and which are free.

    `threads` is how many cores each unit is counted for. Where units differ in size (a mixed processor, or a
    sibling that is reserved) the smallest decides: the same number of units must do for a guest wherever it runs.
    Raises UsageError for groups that are empty or overlap.
    """

    def __init__(self, groups: Iterable[Iterable[int]]) -> None:
        self._groups = sorted(tuple(sorted(group)) for group in groups)
        self._unit = {core: unit for unit, group in enumerate(self._groups) for core in group}
        if not all(self._groups) or len(self._unit) != sum(map(len, self._groups)):
            raise UsageError(f"units {self._groups}: each needs a core, and no core can be in two of them")
        self.threads = min(map(len, self._groups), default=1)
        self.usable = self.free = (1 << len(self._groups)) - 1

    @property
    def size(self) -> int:
        """How many units shared guests may have now. Growth: one step per 30 units."""
        return self.usable.bit_count()

    def need(self, width: int) -> int:
        """Return how many units a guest of `width` cores takes."""
        return -(-width // self.threads)

    def cores(self, units: int) -> tuple[int, ...]:
        """Return the cores of units, ascending. Growth: n log n in those cores."""
        cores: list[int] = []
        while units:
            lowest = units & -units
            cores += self._groups[lowest.bit_length() - 1]
            units ^= lowest
        return tuple(sorted(cores))

    def exactly(self, cores: Iterable[int]) -> int:
        """Return the units that these cores make up; UsageError if they are no whole units. Growth: linear."""
        wanted = frozenset(cores)
        units = self.within(wanted)
        if set(self.cores(units)) != wanted:
            raise UsageError(f"cores {format_cpulist(wanted)} are not whole physical cores of the shared pool")
        return units

    def within(self, cores: frozenset[int]) -> int:
        """Return the units all of whose cores are among these; others are passed over. Growth: linear."""
        touched = {self._unit[core] for core in cores if core in self._unit}
        return sum(1 << unit for unit in touched if cores.issuperset(self._groups[unit]))

    def allow(self, units: int) -> None:
        """Let shared guests have these units only; nobody may be on any other."""
        held = self.usable & ~self.free
        self.usable = units
        self.free = units & ~held

    def take(self, units: int) -> None:
        """Take exactly these free units."""
        self.free ^= units

    def retake(self, units: int) -> bool:
        """Take these units if there are any and all of them are free, and tell whether they were."""
        if not units or self.free & units != units:
            return False
        self.free ^= units
        return True

    def choose(self, need: int, liked: int) -> int:
        """Take `need` free units: first of those that are `liked`, then the lowest; return them. Growth: linear."""
        chosen = 0
        for pool in (self.free & liked, self.free & ~liked):
            rest = pool
            while rest and need:
                lowest = rest & -rest
                chosen |= lowest
                rest ^= lowest
                need -= 1
        self.free &= ~chosen
        return chosen

    def give(self, units: int) -> None:
        """Take units back."""
        self.free |= units & self.usable

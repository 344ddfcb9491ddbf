"""Weighted shares in virtual time, and waiting lines from which the next one that fits is found quickly.

Virtual time is core time divided by weight: who has the least of it has had the least of what is due to it. The
scheme is start-time fair queueing (Goyal, Vin and Cheng, 1997), kept in whole numbers so that no order ever
depends on rounding twice. Core time is in core-nanoseconds: nanoseconds times the units held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

_FRACTION_BITS = 20
_FIRST_SWEEP = 64

ALL = 0
"""The line in which everybody stands, whatever they need."""

T = TypeVar("T")


@dataclass(slots=True, eq=False, kw_only=True)
class Share:
    """One party to a weighted division; `tag` is its virtual time, in core-nanoseconds by weight times 2**20.

    The tag is computed from the whole time used since the tag was last set, so that a payment that is taken
    back leaves no trace. Each method takes constant time.
    """

    weight: int
    tag: int = 0
    _base: int = 0
    _used: int = 0

    def pay(self, core_time: int) -> None:
        """Count core time as used; a negative amount takes back what was paid in advance."""
        self._used += core_time
        self.tag = self._base + (self._used << _FRACTION_BITS) // self.weight

    def worth(self, core_time: int) -> int:
        """Return what core time costs this share in virtual time, rounded down."""
        return (core_time << _FRACTION_BITS) // self.weight

    def raise_to(self, tag: int) -> None:
        """Forfeit what lies below `tag`, if anything."""
        if tag > self.tag:
            self._base, self._used, self.tag = tag, 0, tag

    def reweigh(self, weight: int) -> None:
        """Count from here on by another weight."""
        self._base, self._used, self.weight = self.tag, 0, weight


class Lines(Generic[T]):
    """Waiting lines, one for each number of units needed and one of all, so that "the first that fits" is no scan.

    A place in a line is a pair of numbers, the least first and unique among items. Nobody is searched for to be
    moved or taken out. When an entry comes up, `check(item, line, major, minor)` returns the major number that is
    right for it now: the same, a larger one, or None if the entry is void; only who moves forward must be pushed
    again. `push` is logarithmic in the entries, a line being swept whenever it has doubled. `first` looks at the
    line of all if everybody fits, else at the top of each line that may, and pays once for each entry that it
    moves or drops.
    """

    __slots__ = ("_check", "_heaps", "_sweeps", "_widest")

    def __init__(self, check: Callable[[T, int, int, int], int | None]) -> None:
        self._check = check
        self._heaps: dict[int, list[tuple[int, int, T]]] = {ALL: []}
        self._sweeps = {ALL: _FIRST_SWEEP}
        self._widest = 0

    def push(self, line: int, major: int, minor: int, item: T) -> None:
        """List an item in the line of its need, or that of `ALL`; it must stand in both."""
        heap = self._heaps.get(line)
        if heap is None:
            heap = self._heaps[line] = []
            self._sweeps[line] = _FIRST_SWEEP
            self._widest = max(self._widest, line)
        heappush(heap, (major, minor, item))
        if len(heap) > self._sweeps[line]:
            checked = [(self._check(item, line, major, minor), minor, item) for major, minor, item in heap]
            heap[:] = [(major, minor, item) for major, minor, item in checked if major is not None]
            heapify(heap)
            self._sweeps[line] = 2 * len(heap) + _FIRST_SWEEP

    def first(self, limit: int) -> T | None:
        """Return the first item among those that need at most `limit` units; it stays listed."""
        if limit >= self._widest:
            top = self._top(ALL)
            return top[2] if top else None
        best: tuple[int, int, T] | None = None
        for line in self._heaps:
            if ALL < line <= limit:
                top = self._top(line)
                if top is not None and (best is None or top < best):
                    best = top
        return best[2] if best else None

    def _top(self, line: int) -> tuple[int, int, T] | None:
        heap = self._heaps[line]
        while heap:
            top = heap[0]
            major, minor, item = top
            right = self._check(item, line, major, minor)
            if right == major:
                return top
            if right is None:
                heappop(heap)
            else:
                heapreplace(heap, (right, minor, item))
        return None

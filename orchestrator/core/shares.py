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

ALL = 1 << 60
"""The line of those who stand in one for everybody too: it is wider than any limit."""

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
    """Waiting lines, one for each number of units needed, so that "the first that fits" is no scan of all that wait.

    A place in a line is a pair of numbers, the least first and unique among items. Nobody is searched for to be
    moved or taken out. When an entry comes up, `check(item, line, major, minor)` returns the major number that is
    right for it now: the same, a larger one, or None if the entry is void; only who moves forward must be pushed
    again. `push` is logarithmic in the entries of a line, which is swept whenever it has doubled. `first` looks at
    the top of each line that may, `top` at one; they pay once for each entry that they move or drop.
    """

    __slots__ = ("_check", "_heaps", "_sweeps")

    def __init__(self, check: Callable[[T, int, int, int], int | None]) -> None:
        self._check = check
        self._heaps: dict[int, list[tuple[int, int, T]]] = {}
        self._sweeps: dict[int, int] = {}

    def push(self, line: int, major: int, minor: int, item: T) -> None:
        """List an item in the line of its need."""
        heap = self._heaps.get(line)
        if heap is None:
            heap = self._heaps[line] = []
            self._sweeps[line] = _FIRST_SWEEP
        heappush(heap, (major, minor, item))
        if len(heap) > self._sweeps[line]:
            checked = [(self._check(item, line, major, minor), minor, item) for major, minor, item in heap]
            heap[:] = [(major, minor, item) for major, minor, item in checked if major is not None]
            heapify(heap)
            self._sweeps[line] = 2 * len(heap) + _FIRST_SWEEP

    def top(self, line: int) -> T | None:
        """Return the first item of one line; it stays listed."""
        heap = self._heaps.get(line)
        while heap:
            major, minor, item = heap[0]
            right = self._check(item, line, major, minor)
            if right == major:
                return item
            if right is None:
                heappop(heap)
            else:
                heapreplace(heap, (right, minor, item))
        return None

    def first(self, limit: int) -> T | None:
        """Return the first item among those that need at most `limit` units; it stays listed."""
        best: tuple[int, int, T] | None = None
        for line, heap in self._heaps.items():
            while heap and line <= limit and (best is None or heap[0] < best):
                major, minor, item = top = heap[0]
                right = self._check(item, line, major, minor)
                if right == major:
                    best = top
                    break
                if right is None:
                    heappop(heap)
                else:
                    heapreplace(heap, (right, minor, item))
        return best[2] if best else None

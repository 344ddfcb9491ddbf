"""The turns that are being taken now, by when they end, to tell when a gang will find enough room."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter

from orchestrator.core.members import Member


class _Cohort:
    """Members of one class whose turns end, and may be cut, at the same moments, by when they were entered.

    `units` is what they have together.
    """

    __slots__ = ("members", "units")

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.units = 0


_Calendar = list[tuple[int, int, _Cohort]]
"""Cohorts by a moment of theirs; the other of their two moments makes the order complete."""


class _Group:
    """The turns of one class on the same terms: by when they end, and by when they may be cut."""

    __slots__ = ("ends", "floors")

    def __init__(self) -> None:
        self.ends: _Calendar = []
        self.floors: _Calendar = []


class Turns:
    """The running members, by class, by the end of their slice and by the end of their minimum run.

    A head of a higher class may have the units of a lower one as soon as that one has had its minimum run, and
    a due head those that are borrowed, at any moment; everybody else waits for the end of the slice.

    Slices mostly begin and end together, so members are kept in cohorts: a member enters and leaves in constant
    time, a cohort is logarithmic in their number. What it costs to make room grows with the cohorts that end, or
    may be cut, before there is enough, and with the classes.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[int, bool], _Group] = {}
        self._cohorts: dict[tuple[int, bool, int, int], _Cohort] = {}
        self._entries = 0

    def __iter__(self) -> Iterator[Member]:
        """Return the running members by the end of their slices. Growth: n log n."""
        everybody = (member for cohort in self._cohorts.values() for member in cohort.members.values())
        return iter(sorted(everybody, key=lambda member: (member.until, member.place)))

    def add(self, member: Member, *, borrowed: bool) -> None:
        """Enter a member that starts or goes on."""
        member.terms = terms = (member.account.tier.priority, borrowed, member.until, member.floor)
        cohort = self._cohorts.get(terms)
        if cohort is None:
            cohort = self._open(terms)
        self._entries += 1
        member.entry = self._entries
        cohort.members[member.entry] = member
        cohort.units += member.need

    def remove(self, member: Member) -> None:
        """Take out a member."""
        cohort = self._cohorts[member.terms]
        del cohort.members[member.entry]
        cohort.units -= member.need
        if not cohort.members:
            self._close(member.terms)

    def borrows(self, member: Member) -> bool:
        """Whether a member that is entered gives way to a due head at any moment."""
        return member.terms[1]

    def first_end(self) -> int | None:
        """Return when the first slice ends."""
        return min((group.ends[0][0] for group in self._groups.values() if group.ends), default=None)

    def over(self, now: int) -> list[Member]:
        """Return the members whose slices have ended, the lowest class first. Growth: n log n in them."""
        return [member for group in self._groups.values() for member in _members(group.ends, now)]

    def take_over(self, now: int) -> list[Member]:
        """Take out the members whose slices have ended, and return them, the lowest class first."""
        members = self.over(now)
        for (priority, borrowed), group in self._groups.items():
            while group.ends and group.ends[0][0] <= now:
                until, floor, _ = group.ends[0]
                self._close((priority, borrowed, until, floor))
        return members

    def victims(self, head: Member, now: int) -> list[Member]:
        """Return who gives way to this head now: who borrows, then the lowest class, longest without end first.

        Growth: n log n in them.
        """
        lent = [_members(group.floors) for group in self._lending(head, now)]
        lower = [_members(group.floors, now) for group in self._groups_below(head, now)]
        return [member for members in lent + lower for member in members]

    def room(self, head: Member, free: int, now: int) -> tuple[int, int]:
        """Return when this head will find enough units, and how many there will be then; `free` are free now."""
        for group in self._lending(head, now):
            free += sum(cohort.units for _, _, cohort in group.ends)
        at = now
        for moment, _, cohort in merge(*self._calendars(head, now), key=itemgetter(0)):
            if free >= head.need and moment > at:
                break
            at = max(at, moment)
            free += cohort.units
        return at, free

    def holders(self, head: Member, free: int, now: int) -> Iterator[Member]:
        """Yield whose units make the room for this head, soonest free first. Growth: n log n in the turns."""
        lent = ((now, member) for group in self._lending(head, now) for member in _members(group.ends))
        waited = (
            (max(now, moment), member)
            for calendar in self._calendars(head, now)
            for moment, _, cohort in calendar
            for member in cohort.members.values()
        )
        for _, member in sorted((*lent, *waited), key=lambda entry: (entry[0], entry[1].place)):
            if free >= head.need:
                return
            yield member
            free += member.need

    def _open(self, terms: tuple[int, bool, int, int]) -> _Cohort:
        priority, borrowed, until, floor = terms
        group = self._groups.get((priority, borrowed))
        if group is None:
            group = self._groups[priority, borrowed] = _Group()
            self._groups = dict(sorted(self._groups.items(), key=itemgetter(0)))
        cohort = self._cohorts[terms] = _Cohort()
        insort(group.ends, (until, floor, cohort))
        insort(group.floors, (floor, until, cohort))
        return cohort

    def _close(self, terms: tuple[int, bool, int, int]) -> None:
        priority, borrowed, until, floor = terms
        group = self._groups[priority, borrowed]
        del self._cohorts[terms]
        del group.ends[bisect_left(group.ends, (until, floor))], group.floors[bisect_left(group.floors, (floor, until))]

    def _calendars(self, head: Member, now: int) -> Iterable[_Calendar]:
        """Return by which moments this head waits for those who do not lend to it."""
        below = head.account.tier.priority
        return [
            group.floors if priority < below else group.ends
            for (priority, borrowed), group in self._groups.items()
            if not (borrowed and head.due <= now)
        ]

    def _groups_below(self, head: Member, now: int) -> list[_Group]:
        below = head.account.tier.priority
        return [
            group
            for (priority, borrowed), group in self._groups.items()
            if priority < below and not (borrowed and head.due <= now)
        ]

    def _lending(self, head: Member, now: int) -> list[_Group]:
        due = head.due <= now
        return [group for (_, borrowed), group in self._groups.items() if borrowed and due]


def _members(calendar: _Calendar, last: int | None = None) -> Iterator[Member]:
    """Yield the members whose moment is not after `last` (all if there is none), by it and by when they entered."""
    for moment, cohorts in groupby(calendar, key=itemgetter(0)):
        if last is not None and moment > last:
            return
        first, *others = [cohort.members for _, _, cohort in cohorts]
        if others:
            first = dict(sorted(chain(first.items(), *(members.items() for members in others)), key=itemgetter(0)))
        yield from first.values()

"""The turns that are being taken now, by when they end, to tell when a gang will find enough room."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import merge

from orchestrator.core.members import Member


class _Calendar:
    """Members by a moment of theirs, first entered first within one; `units` is what those of a moment need.

    Slices mostly end together, so there are few moments; each operation is logarithmic in them.
    """

    def __init__(self) -> None:
        self.moments: list[int] = []
        self.members: dict[int, dict[str, Member]] = {}
        self.units: dict[int, int] = {}

    def add(self, moment: int, member: Member) -> None:
        entered = self.members.get(moment)
        if entered is None:
            insort(self.moments, moment)
            entered = self.members[moment] = {}
            self.units[moment] = 0
        entered[member.id] = member
        self.units[moment] += member.need

    def remove(self, moment: int, member: Member) -> None:
        entered = self.members[moment]
        del entered[member.id]
        self.units[moment] -= member.need
        if not entered:
            del self.members[moment], self.units[moment], self.moments[bisect_left(self.moments, moment)]

    def until(self, last: int | None = None) -> Iterator[Member]:
        """Yield the members whose moment is not after `last`; all of them if there is none."""
        for moment in self.moments:
            if last is not None and moment > last:
                return
            yield from self.members[moment].values()

    def releases(self) -> Iterator[tuple[int, int]]:
        """Yield each moment with its units."""
        return ((moment, self.units[moment]) for moment in self.moments)


class _Group:
    """The turns of one class on the same terms: when they end, and when they may be cut."""

    def __init__(self) -> None:
        self.ends = _Calendar()
        self.floors = _Calendar()


class Turns:
    """The running members, by class, by the end of their slice and by the end of their minimum run.

    A head of a higher class may have the units of a lower one as soon as that one has had its minimum run, and
    a due head those that are borrowed, at any moment; everybody else waits for the end of the slice. What it costs
    grows with the distinct moments at which slices end, and with the classes.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[int, bool], _Group] = {}

    def __iter__(self) -> Iterator[Member]:
        """Return the running members by the end of their slices. Growth: n log n."""
        everybody = (member for group in self._groups.values() for member in group.ends.until())
        return iter(sorted(everybody, key=lambda member: (member.until, member.place)))

    def add(self, member: Member) -> None:
        """Enter a member that starts or goes on."""
        group = self._groups.get(member.terms)
        if group is None:
            group = self._groups[member.terms] = _Group()
            self._groups = dict(sorted(self._groups.items()))
        group.ends.add(member.until, member)
        group.floors.add(member.floor, member)

    def remove(self, member: Member) -> None:
        """Take out a member."""
        group = self._groups[member.terms]
        group.ends.remove(member.until, member)
        group.floors.remove(member.floor, member)

    def first_end(self) -> int | None:
        """Return when the first slice ends."""
        return min((group.ends.moments[0] for group in self._groups.values() if group.ends.moments), default=None)

    def over(self, now: int) -> list[Member]:
        """Return the members whose slices have ended, the lowest class first. Growth: linear in them."""
        return [member for group in self._groups.values() for member in group.ends.until(now)]

    def victims(self, head: Member, now: int) -> list[Member]:
        """Return who gives way to this head now: who borrows, then the lowest class, longest without end first.

        Growth: linear in them.
        """
        lent = [group.floors.until() for group in self._lending(head, now)]
        lower = [group.floors.until(now) for group in self._groups_below(head, now)]
        return [member for members in lent + lower for member in members]

    def room(self, head: Member, free: int, now: int) -> tuple[int, int]:
        """Return when this head will find enough units, and how many there will be then; `free` are free now."""
        for group in self._lending(head, now):
            free += sum(group.ends.units.values())
        at = now
        for moment, units in merge(*(calendar.releases() for calendar in self._calendars(head, now))):
            if free >= head.need and moment > at:
                break
            at = max(at, moment)
            free += units
        return at, free

    def holders(self, head: Member, free: int, now: int) -> Iterator[Member]:
        """Yield whose units make the room for this head, soonest free first. Growth: n log n in the turns."""
        lent = ((now, member) for group in self._lending(head, now) for member in group.ends.until())
        waited = (
            (max(now, moment), member)
            for calendar in self._calendars(head, now)
            for moment in calendar.moments
            for member in calendar.members[moment].values()
        )
        for _, member in sorted((*lent, *waited), key=lambda entry: (entry[0], entry[1].place)):
            if free >= head.need:
                return
            yield member
            free += member.need

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

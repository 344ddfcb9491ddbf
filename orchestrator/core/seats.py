"""Where turns are taken: beginning and ending them, paying for them, and choosing their cores.

Who may begin one, and how long it lasts, is decided in `rotation`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from orchestrator.core.members import RUNNING, Member
from orchestrator.core.order import Order
from orchestrator.core.sharing import Rules, Stop
from orchestrator.core.turns import Turns
from orchestrator.core.units import Units


class Seats:
    """The units of the pool and the turns on them; `free` counts the units that nobody has.

    A turn that `begin`s counts at once, and gets its cores when all that begin together are `seat`ed. `is_late` is as
    for `Rotation`.
    """

    def __init__(self, rules: Rules, units: Units, order: Order, is_late: Callable[[str], bool]) -> None:
        self._obey(rules)
        self._is_late = is_late
        self._order = order
        self.units = units
        self.turns = Turns()
        self.free = units.free.bit_count()

    def set_rules(self, rules: Rules, now: int) -> None:
        """Go by other rules from now on; no turn lasts longer from here than one that begins now. Growth: n log n."""
        self._obey(rules)
        most = now + rules.slice + rules.handover
        for member in self.turns:
            if member.until > most:
                self.last(member, most)

    def begin(self, member: Member, now: int, until: int, *, goes_on: bool, borrowed: bool = False) -> None:
        """Let a waiting member run until `until`, paid in advance; `goes_on` if it never stopped."""
        if not goes_on:
            member.started = now
        floor = member.started + self._least
        member.until = member.paid_to = until
        member.floor = floor if floor < until else until
        member.state = RUNNING
        self._order.dequeue(member, (until - now) * member.need)
        self.turns.add(member, borrowed=borrowed)
        self.free -= member.need

    def end(self, member: Member, now: int) -> Stop:
        """End a turn, settle what was paid, free its units, and return what this means if it is not begun anew."""
        self.turns.remove(member)
        self._order.pay(member, (now - member.paid_to) * member.need)
        self.units.give(member.units)
        self.free += member.need
        return Stop(member.id, member.cores, now - member.started)

    def end_all_over(self, now: int) -> list[Member]:
        """End the turns whose slices are over, and let those members wait. Growth: as of so many `Order.enqueue`."""
        ended = self.turns.take_over(now)
        freed = 0
        for member in ended:
            if member.paid_to != now:
                self._order.pay(member, (now - member.paid_to) * member.need)
            self.wait_again(member, now)
            freed |= member.units
            self.free += member.need
        self.units.give(freed)
        return ended

    def wait_again(self, member: Member, now: int, *, keep_place: bool = False) -> None:
        """Let a member wait whose turn has ended; if that never began, it goes on waiting, and has paid nothing."""
        if self._is_late(member.id):
            keep_place = True
            self._order.pay(member, (member.started - now) * member.need)
            member.started = now
        self._order.enqueue(member, now, keep_place=keep_place)

    def last(self, member: Member, until: int) -> None:
        """Let a turn that is being taken last until then, and be paid so far. Growth: logarithmic."""
        borrowed = self.turns.borrows(member)
        self.turns.remove(member)
        self._order.pay(member, (until - member.paid_to) * member.need)
        member.until = member.paid_to = until
        member.floor = min(member.floor, until)
        self.turns.add(member, borrowed=borrowed)

    def settle(self, now: int) -> None:
        """Let those pay who ran on past their slices since nobody waited. Growth: linear in them."""
        for member in self.turns.over(now):
            beyond = now - member.paid_to
            last = min(beyond, self._slice)
            # Nobody waited, so each slice but the last was served in order, down to the very end.
            self._order.pay(member, (beyond - last) * member.need)
            self._order.advance(member)
            self._order.pay(member, last * member.need)
            member.paid_to = now

    def seat(self, going_on: Iterable[Member], beginning: Collection[Member]) -> None:
        """Give cores to those that have just begun: to each those it had, if they are free, else the lowest.

        Who goes on keeps its own; then come those that find all their former units free, then the others.
        """
        for member in going_on:
            self.units.take(member.units)
        newcomers = []
        for member in beginning:
            if not self.units.retake(member.units):
                newcomers.append(member)
        for member in newcomers:
            self.place(member, self.units.choose(member.need, member.units))

    def place(self, member: Member, units: int) -> None:
        """Record the units a member has, which are taken already."""
        member.units = units
        member.cores = self.units.cores(units)

    def _obey(self, rules: Rules) -> None:
        self._slice, self._least = rules.slice, rules.handover + rules.minimum

    def resize(self, usable: int) -> None:
        """Let shared guests have these units only; nobody may be on any other."""
        self.units.allow(usable)
        self.free = self.units.free.bit_count()

"""The rotation of shared guests: who runs on which cores until when. Pure: time comes in as an argument.

All vCPUs of a guest run at once, on cores that are its own for the turn. A turn lasts one slice; when it ends the
guest goes on if nobody who is before it in `order` wants its cores, and is stopped otherwise. The first guest in
order that does not fit gets a reservation; others run beside it where that does not put it off, so that a wide gang
is never passed for ever. How long a wait can be is stated and proved in `waits`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from orchestrator.core.members import AWAY, RUNNING, WAITING, Member, Room
from orchestrator.core.order import Order
from orchestrator.core.seats import Seats
from orchestrator.core.sharing import Decisions, Guest, Rules, Stop, Turn, Wait
from orchestrator.core.units import Units
from orchestrator.core.waits import rounds
from orchestrator.errors import UsageError


class Rotation:
    """The shared guests of one pool, and the turns they take.

    Mutable, since a decision among ten thousand guests must not copy them; it changes only through its methods,
    and the same calls give the same decisions. After any change call `tick`, and again at `next_event`. `now` is in
    nanoseconds and never less than in the call before.

    A decision is logarithmic in the guests, times the number of distinct widths among those that wait; making room
    for a head walks the distinct moments at which slices end, or may be cut, before it.
    """

    def __init__(
        self, rules: Rules, groups: Iterable[Iterable[int]], is_late: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Begin with all cores of `groups`: single cores, or physical cores with their siblings, never split.

        `is_late` tells of a guest that has a turn whether it still waits for others to stop. It loses no place by that
        if the turn is over by then, which is begun anew; and has a whole one, if `began` is told when it runs.
        """
        self._obey(rules)
        units = Units(groups)
        self._order = Order(rules, units.size)
        self._seats = Seats(rules, units, self._order, is_late)
        self._head: Member | None = None
        self._room: Room | None = None
        self._stops: list[Stop] = []

    def add(self, guest: Guest, now: int, running_on: Collection[int] = ()) -> None:
        """Take in a guest that is to run, or that was found running on these cores, as after a restart.

        Raises UsageError if its name is taken, or if the cores are not free whole units of its width.
        """
        units = self._seats.units
        need, found = units.need(guest.width), units.exactly(running_on)
        if guest.id in self._order.members:
            raise UsageError(f"{guest.id}: a shared guest of this name takes turns already")
        if running_on and (found & ~units.free or found.bit_count() != need):
            raise UsageError(f"{guest.id}: cores {sorted(running_on)} are not {need} free units of the shared pool")
        member = self._order.admit(guest.id, guest.owner, guest.weight, guest.priority, (guest.width, need))
        self._join(member, now)
        if running_on:
            self._order.advance(member)
            self._room = None
            self._seats.begin(member, now, now + self._round, goes_on=False)
            units.take(found)
            self._seats.place(member, found)

    def remove(self, guest: str, now: int) -> Stop | None:
        """Forget a guest, and return the turn that this ends, if it was running."""
        stop = self.block(guest, now)
        del self._order.members[guest]
        return stop

    def block(self, guest: str, now: int) -> Stop | None:
        """Give a guest no more turns (its user paused it), and return the turn that this ends, if it was running."""
        member = self._order.members[guest]
        if member.state is AWAY:
            return None
        stop = None
        if member.state is RUNNING:
            stop = self._seats.end(member, now)
            self._room = None
        else:
            self._order.dequeue(member)
            self._leave_head(member)
        self._order.leave(member)
        return stop

    def unblock(self, guest: str, now: int) -> None:
        """Give a blocked guest turns again; it waits from now on."""
        member = self._order.members[guest]
        if member.state is AWAY:
            self._join(member, now)

    def weigh_owner(self, owner: str, weight: int) -> None:
        """Set an owner's weight from now on; 100 until then. Raises UsageError if it is not at least 1."""
        if weight < 1:
            raise UsageError(f"owner {owner}: weight {weight} must be at least 1")
        self._order.weigh_owner(owner, weight)

    def set_cores(self, cores: Iterable[int], now: int) -> None:
        """Let shared guests have these cores only; a unit that is not wholly among them is nobody's.

        Who runs on another is stopped by the next tick. All waits are promised anew, for the bound counts on the
        pool as it is. Growth: n log n in the guests.
        """
        usable = self._seats.units.within(frozenset(cores))
        if not self._order.waiting:
            self._seats.settle(now)
        for member in [member for member in self._seats.turns if member.units & ~usable]:
            self._seats.end(member, now)
            self._seats.wait_again(member, now, keep_place=now < member.floor)
            self._stops.append(Stop(member.id, member.cores, now - member.started))
        self._seats.resize(usable)
        self._order.resize(self._seats.units.size)
        self._promise_anew(now)

    def set_rules(self, rules: Rules, now: int) -> None:
        """Let turns and waits go by other rules from now on, those under way too.

        A turn that would last longer than one may now is cut, and whoever waits is due no later than he was: so the
        bound of the new rules holds from now on, and all waits are promised anew by it. Growth: n log n in the guests.
        """
        if not self._order.waiting:
            self._seats.settle(now)
        self._obey(rules)
        self._seats.set_rules(rules, now)
        self._order.set_rules(rules)
        self._promise_anew(now)

    def began(self, guest: str, now: int) -> None:
        """Note that a guest runs whose turn was begun; one that was late has a slice from now on, unless it borrows."""
        member, until = self._order.members.get(guest), now + self._slice
        if member is not None and member.state is RUNNING and member.until < until:
            self._room = None
            if not self._seats.turns.borrows(member):
                self._seats.last(member, until)

    def charge(self, stop: Stop, ran: int, now: int) -> None:
        """Replace the decided length of an ended turn by the confirmed one, in nanoseconds.

        Who has run on for longer than a hand-over may take has not waited meanwhile.
        """
        member = self._order.members.get(stop.guest)
        if member is None:
            return
        self._order.pay(member, (ran - stop.ran) * member.need)
        if ran - stop.ran > self._handover and member.state is WAITING:
            self._order.dequeue(member)
            self._leave_head(member)
            self._wait(member, now)

    def next_event(self) -> int | None:
        """Return when to tick next, if nothing changes before; None if nobody waits who could run."""
        if not self._order.waiting:
            return None
        end = self._seats.turns.first_end()
        return self._room.at if self._room and (end is None or self._room.at < end) else end

    def tick(self, now: int) -> Decisions:
        """Decide what has to stop and what runs now; nothing if nobody waits."""
        stops, self._stops = self._stops, []
        if not self._order.waiting:
            return Decisions(tuple(stops))
        ended = {member.id: member for member in self._seats.end_all_over(now)}
        begun = self._fill(now, ended)
        fresh = [member for member in begun if member.id not in ended]
        self._seats.seat((member for member in begun if member.id in ended), fresh)
        ahead = self._order.waiting_units
        for member in reversed(ended.values()):
            if member.state is WAITING:
                stops.append(Stop(member.id, member.cores, now - member.started))
                if member.since == now:  # else it goes on waiting, and what it was promised stands
                    ahead -= member.need
                    member.latest = self._bound(member, now, ahead)
        return Decisions(tuple(stops), tuple(map(Member.run, fresh)))

    def turns(self) -> tuple[Turn, ...]:
        """Return the turns being taken, soonest over first. Growth: linear."""
        return tuple(map(Member.turn, self._seats.turns))

    def waits(self, now: int) -> tuple[Wait, ...]:
        """Return all that wait, in the order in which they are served if they fit. Growth: n log n in the guests."""
        latest = {member.id: self._latest(member, now, ahead) for member, ahead in self._order.ahead()}
        kept = self._kept_head(now)
        queue = sorted(self._order.queue(now), key=lambda member: member is not kept)
        return tuple(
            Wait(
                guest=member.id,
                owner=member.account.owner,
                width=member.width,
                priority=member.account.tier.priority,
                position=position,
                since=member.since,
                due=member.due,
                latest=latest[member.id],
                reserved=self._room.at if self._room and member is self._head else None,
            )
            for position, member in enumerate(queue, start=1)
        )

    def holders(self, guest: str, now: int) -> tuple[Turn, ...]:
        """Return the turns whose cores a waiting guest would get if it were next, soonest first. Growth: n log n."""
        holders = self._seats.turns.holders(self._order.members[guest], self._seats.free, now)
        return tuple(map(Member.turn, holders))

    def _obey(self, rules: Rules) -> None:
        self._slice, self._round = rules.slice, rules.slice + rules.handover
        self._least = rules.handover + rules.minimum
        self._handover = rules.handover

    def _promise_anew(self, now: int) -> None:
        self._room = None
        for member, ahead in self._order.ahead():
            member.latest = self._bound(member, now, ahead)

    def _join(self, member: Member, now: int) -> None:
        if not self._order.waiting:
            self._seats.settle(now)
        self._order.join(member)
        self._wait(member, now)

    def _wait(self, member: Member, now: int) -> None:
        ahead = self._order.waiting_units
        self._order.enqueue(member, now)
        member.latest = self._bound(member, now, ahead)

    def _fill(self, now: int, ended: dict[str, Member]) -> list[Member]:
        """Begin turns in order until nobody fits, and return who begins or goes on."""
        begun: list[Member] = []
        order, seats = self._order, self._seats
        member = self._kept_head(now) or order.first(order.size, now)
        while member is not None:
            if member.need > seats.free:
                room = self._make_room(member, now, ended)
                if room is not None:
                    return begun + self._backfill(room, now, ended)
            order.advance(member)
            if member is self._head:
                self._head = None
            self._room = None
            goes_on = member.id in ended
            seats.begin(member, now, now + (self._slice if goes_on else self._round), goes_on=goes_on)
            begun.append(member)
            member = order.first(order.size, now)
        return begun

    def _backfill(self, room: Room, now: int, ended: dict[str, Member]) -> list[Member]:
        """Begin turns beside the head, in order, that do not put it off, and return who begins or goes on."""
        begun: list[Member] = []
        order, seats = self._order, self._seats
        worth_it = room.at - now >= self._least
        while limit := seats.free if worth_it else min(seats.free, room.spare):
            member = order.first(limit, now)
            if member is None:
                break
            self._begin_beside(member, now, room, goes_on=member.id in ended)
            begun.append(member)
        # Too little time is left for a hand-over, but not for going on.
        rest = [member for member in ended.values() if member.need <= seats.free and member.state is WAITING]
        for member in sorted(rest, key=lambda member: member.rank(now)):
            if member.need <= seats.free:
                self._begin_beside(member, now, room, goes_on=True)
                begun.append(member)
        return begun

    def _kept_head(self, now: int) -> Member | None:
        head = self._head
        return head if head is not None and head.due <= now and head.need <= self._order.size else None

    def _make_room(self, head: Member, now: int, ended: dict[str, Member]) -> Room | None:
        """Reserve the first moment at which the head fits; if that is now, end the turns that give way instead."""
        due = head.due <= now
        room = self._room
        if room is None or head is not self._head or room.due != due or room.at <= now:
            at, units = self._seats.turns.room(head, self._seats.free, now)
            room = Room(at, 0 if due else units - head.need, due, head.account.tier.priority)
        if room.at > now:
            self._head, self._room = head, room
            return room
        for victim in self._seats.turns.victims(head, now):
            if head.need <= self._seats.free:
                break
            self._seats.end(victim, now)
            self._seats.wait_again(victim, now)
            ended[victim.id] = victim
        return None

    def _begin_beside(self, member: Member, now: int, room: Room, *, goes_on: bool) -> None:
        until = now + (self._slice if goes_on else self._round)
        if until > room.at and not self._gives_way(member, member.started if goes_on else now, room):
            if member.need <= room.spare:
                room.spare -= member.need
            else:
                until = room.at
        self._seats.begin(member, now, until, goes_on=goes_on, borrowed=room.due)

    def _gives_way(self, member: Member, started: int, room: Room) -> bool:
        lower = member.account.tier.priority < room.priority
        return lower and not room.due and started + self._least <= room.at

    def _latest(self, member: Member, now: int, ahead: int) -> int | None:
        """Return the promise of a waiting member, or what is promised now if that is sooner."""
        bound = self._bound(member, now, ahead)
        return bound if bound is None or member.latest is None else min(member.latest, bound)

    def _leave_head(self, member: Member) -> None:
        if member is self._head:
            self._head = self._room = None

    def _bound(self, member: Member, now: int, ahead: int) -> int | None:
        """Return by when a waiting member runs, hand-over included, if others that need `ahead` units go before.

        None if it is wider than the pool.
        """
        size = self._order.size
        if member.need > size:
            return None
        return max(now, member.due) + rounds(ahead, member.need, size) * self._round + self._handover

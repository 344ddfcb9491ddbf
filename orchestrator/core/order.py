"""Who is next among the shared guests that wait. Nothing here knows which cores there are, only how many units.

The order is: guests that are *due*, by when their wait began; then priority classes from the highest; within a
class the owner with the least virtual time; of that owner the guest with the least; then whose wait began first.
Each class divides anew between owners by their weights, each owner between its guests by theirs.

Two rules keep virtual time honest. Who comes (back) starts at the *front*, the furthest point that service in
order has reached: there is no credit for having been away, and a guest that is new pays one turn in advance, so a
stream of new guests cannot pass an old one. And no credit beyond `CREDIT_TURNS` slices of the whole pool can be
saved up by using less than one's share.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from orchestrator.core.members import AWAY, WAITING, Account, Member, Tier, in_due
from orchestrator.core.shares import ALL, Lines, Share
from orchestrator.core.sharing import Rules

CREDIT_TURNS = 8
"""How many slices of the whole pool an owner or guest may be behind its share when its turn ends."""

DEFAULT_WEIGHT = 100
"""The weight of an owner for whom none was set, as of a guest definition that says nothing."""

FAIR_PERIODS = 4
"""How often a guest's fair turn must have been missed before it is due; less would let age outweigh weights."""


class Order:
    """All shared guests, and the order of those that wait.

    Entering, leaving and asking who is next are logarithmic in the guests, times the number of distinct widths.
    `size` is the pool's, in units; `waiting` counts the guests that wait and could run in it, `waiting_units`
    what they need.
    """

    def __init__(self, rules: Rules, size: int) -> None:
        self._obey(rules)
        self._tiers: dict[int, Tier] = {}
        self._weights: dict[str, int] = {}
        self._places = 0
        self._due: Lines[Member] = Lines(in_due)
        self._ripening: list[tuple[int, int, Member]] = []
        self._weighed = 0  # counts the changes by which the members' periods change
        self.members: dict[str, Member] = {}
        self.size = size
        self.waiting = self.waiting_units = 0

    def set_rules(self, rules: Rules) -> None:
        """Go by other rules from now on; who waits is due as they say, or as before if that is sooner. Growth: n."""
        self._obey(rules)
        self._weighed += 1
        for member in self._all_waiting():
            due = member.since + self._patience + FAIR_PERIODS * self._period(member)
            if due < member.due:
                member.due = due
                if member.ripens is None or due < member.ripens:
                    self._ripen_later(member)

    def _obey(self, rules: Rules) -> None:
        self._slice, self._turn, self._patience = rules.slice, rules.slice + rules.handover, rules.patience

    def admit(self, guest: str, owner: str, weight: int, priority: int, extent: tuple[int, int]) -> Member:
        """Take in a new guest, `extent` being its cores and units; it is away as yet."""
        tier = self._tiers.get(priority)
        if tier is None:
            tier = self._tiers[priority] = Tier(priority=priority)
            self._tiers = dict(sorted(self._tiers.items(), reverse=True))
        account = tier.accounts.get(owner)
        if account is None:
            share = self._weights.get(owner, DEFAULT_WEIGHT)
            account = Account(weight=share, owner=owner, index=len(tier.accounts), tier=tier)
            tier.accounts[owner] = account
        width, need = extent
        tier.widest = max(tier.widest, need)
        member = Member(weight=weight, id=guest, width=width, need=need, account=account)
        member.raise_to(account.front + member.worth(self._turn * need))
        self.members[guest] = member
        return member

    def weigh_owner(self, owner: str, weight: int) -> None:
        """Set an owner's weight in every class, from now on. Growth: linear in the classes."""
        self._weights[owner] = weight
        self._weighed += 1
        for tier in self._tiers.values():
            account = tier.accounts.get(owner)
            if account is not None:
                tier.load += (weight - account.weight) if account.load else 0
                account.reweigh(weight)
        self._weigh_tiers()

    def join(self, member: Member) -> None:
        """Let a member that was away take part again, without credit for its absence."""
        account = member.account
        self._weighed += 1
        if not account.load:
            account.tier.load += account.weight
            account.raise_to(account.tier.front)
            self._weigh_tiers()
        account.load += member.weight
        member.raise_to(account.front)

    def leave(self, member: Member) -> None:
        """Let a member that neither waits nor runs any more be away."""
        account = member.account
        self._weighed += 1
        member.state, member.ripens = AWAY, None
        account.load -= member.weight
        if not account.load:
            account.tier.load -= account.weight
            self._weigh_tiers()

    def enqueue(self, member: Member, now: int, *, keep_place: bool = False) -> None:
        """Let a member wait from now on, or go on with its former wait, which its last turn was too short to end."""
        account, need = member.account, member.need
        if member.tag < account.front:
            self._forfeit(member, account.front)
        if account.tag < account.tier.front:
            self._forfeit(account, account.tier.front)
        if not keep_place:
            self._places = member.place = self._places + 1
            member.since = now
            if member.weighed != self._weighed:
                member.weighed, member.period = self._weighed, self._period(member)
            member.due = now + self._patience + FAIR_PERIODS * member.period
        member.state = WAITING
        waiting = account.waiting.get(need, 0)
        account.waiting[need] = waiting + 1
        if not waiting:
            account.list_in_tier(ALL)
            account.list_in_tier(need)
        account.lines.push(need, member.tag, member.place, member)
        if member.ripens is None or member.due < member.ripens:
            self._ripen_later(member)
        if need <= self.size:
            self.waiting += 1
            self.waiting_units += need

    def dequeue(self, member: Member, core_time: int = 0) -> None:
        """Let a member wait no more, and charge core-nanoseconds in advance; its state is the caller's to set."""
        account, need = member.account, member.need
        waiting = account.waiting
        if waiting[need] == 1:
            del waiting[need]
        else:
            waiting[need] -= 1
        if need <= self.size:
            self.waiting -= 1
            self.waiting_units -= need
        member.pay(core_time)
        account.pay(core_time)

    def pay(self, member: Member, core_time: int) -> None:
        """Charge core-nanoseconds to a member and its owner, or give back what was charged too much."""
        if not core_time:
            return
        account = member.account
        member.pay(core_time)
        account.pay(core_time)
        if core_time < 0:
            for line in (ALL, *account.waiting) if account.waiting else ():
                account.list_in_tier(line)
        if member.state is WAITING:
            account.lines.push(member.need, member.tag, member.place, member)

    def advance(self, member: Member) -> None:
        """Note that service in order has reached this member."""
        account = member.account
        account.front = max(account.front, member.tag)
        account.tier.front = max(account.tier.front, account.tag)

    def first(self, limit: int, now: int) -> Member | None:
        """Return the first in order of those that wait for at most `limit` units."""
        if self._ripening and self._ripening[0][0] <= now:
            self._ripen(now)
        due = self._due.first(limit)
        if due is not None:
            return due
        for tier in self._tiers.values():
            member = tier.first(limit)
            if member is not None:
                return member
        return None

    def queue(self, now: int) -> list[Member]:
        """Return all that wait, in order. Growth: n log n."""
        return sorted(self._all_waiting(), key=lambda member: member.rank(now))

    def resize(self, size: int) -> None:
        """Change the pool's size and count anew who could run in it. Growth: linear in the guests."""
        self.size = size
        self._weighed += 1
        fitting = [member for member in self._all_waiting() if member.need <= size]
        self.waiting, self.waiting_units = len(fitting), sum(member.need for member in fitting)

    def ahead(self) -> Iterator[tuple[Member, int]]:
        """Yield all that wait, by when their wait began, with the units needed by those before. Growth: n log n."""
        ahead = 0
        for member in sorted(self._all_waiting(), key=lambda member: member.place):
            yield member, ahead
            ahead += member.need if member.need <= self.size else 0

    def _all_waiting(self) -> Iterator[Member]:
        return (member for member in self.members.values() if member.state is WAITING)

    def _forfeit(self, share: Share, front: int) -> None:
        """Take from a share that is behind the front what is beyond the credit it may have."""
        share.raise_to(front - share.worth(CREDIT_TURNS * self._slice * self.size))

    def _period(self, member: Member) -> int:
        """Return how long a fair rotation takes from one of the member's turns to the next, in nanoseconds.

        A turn costs `turn * need`, and the member's share of the pool pays for it; a class shares with those above.
        """
        account = member.account
        cost = self._turn * member.need * account.load * account.tier.burden
        return -(-cost // (max(self.size, 1) * account.weight * member.weight))

    def _weigh_tiers(self) -> None:
        burden = 0
        for tier in self._tiers.values():
            burden += tier.load
            tier.burden = burden

    def _ripen_later(self, member: Member) -> None:
        """Look at a member when its present wait makes it due; if it is in a later wait by then, look again."""
        member.ripens = member.due
        heappush(self._ripening, (member.due, member.place, member))
        if len(self._ripening) > 64 + 4 * len(self.members):
            self._ripening = [entry for entry in self._ripening if entry[2].ripens == entry[0]]
            heapify(self._ripening)

    def _ripen(self, now: int) -> None:
        """Let those stand in the line of due members that are due by now."""
        while self._ripening and self._ripening[0][0] <= now:
            moment, _, member = heappop(self._ripening)
            if member.ripens != moment:
                continue
            member.ripens = None
            if member.state is not WAITING:
                continue
            if member.due <= now:
                self._due.push(member.need, member.place, 0, member)
            else:
                self._ripen_later(member)

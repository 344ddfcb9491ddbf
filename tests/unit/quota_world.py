"""The virtual host of `scheduler_world`, with a wall clock that can be set and quotas that are looked after."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle

from orchestrator.core.account import Account, Moment
from orchestrator.core.acts import Continue
from orchestrator.core.orders import Happening
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Plan, StartGuest, StopGuest
from orchestrator.core.policy import Policy
from orchestrator.core.scheduler import Scheduler
from tests.unit.scheduler_world import MS, World, host, spec

SECOND = 1000 * MS
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOON = 20_000 * DAY + 12 * HOUR


def moment(monotonic: int, wall: int, boot: str = "b") -> Moment:
    """The clocks at once; days are those of UTC."""
    return Moment(monotonic, boot, wall, wall // DAY, wall % DAY)


@dataclass
class QuotaWorld(World):
    """`wall` is how far the wall clock is ahead of the monotonic one; `stopped` says why guests were stopped."""

    wall: int = NOON
    stopped: dict[str, str] = field(default_factory=dict)

    def moment(self) -> Moment:
        return moment(self.now, self.now + self.wall)

    def start(self, guest: str, owner: str, vcpus: int = 1, *, exclusive: bool = False) -> Plan | Refusal:
        return self.ask(StartGuest(spec=spec(guest, vcpus, exclusive=exclusive), owner=owner))

    def live(self, seconds: float) -> None:
        """Let time pass, and look after the quotas as an engine does."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            overdue, again = self.scheduler.keep_quotas(self.moment())
            for guest, why in overdue:
                if isinstance(self.scheduler.request(StopGuest(guest), self.now), Plan):
                    self.stopped[guest] = why
            self._obey()
            self.run(-(-(min(end, again) - self.now) // MS))

    def cores_of(self, owners: dict[str, str]) -> dict[str, int]:
        """Count the cores on which each owner's guests may run now, as the orders have it."""
        counts = dict.fromkeys(owners.values(), 0)
        for guest in self.may_run.values():
            counts[owners[guest]] += 1
        return counts

    def first(self, guest: str, what: Happening) -> int:
        """When a guest was first told something."""
        return next(notice.at for notice in self.notices if (notice.guest, notice.what) == (guest, what))

    def handed(self, guest: str) -> int:
        return sum(isinstance(order, Continue) and order.guest == guest for _, order in self.log)


def quota_world(policy: Policy, cpus: int = 6, account: Account | None = None) -> QuotaWorld:
    topology = host(cpus)
    scheduler = Scheduler(topology, policy, account=account)
    return QuotaWorld(scheduler, topology, cycle([2 * MS]))

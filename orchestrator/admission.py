"""What becomes of starts that a quota refuses: they fail, wait for room, or the owner's oldest guests make some.

Which rules refuse is `core.plan`'s word. From the last look to the requests nothing else is done, so what was foreseen
is what is decided.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from orchestrator.core.foresight import oldest_first, room_makers
from orchestrator.core.limits import OverQuota
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Plan
from orchestrator.core.policy import Policy
from orchestrator.core.quota import is_quota
from orchestrator.driver import Driver
from orchestrator.errors import RefusedError
from orchestrator.launch import Guest
from orchestrator.together import first_of

LOOK_AGAIN = 1.0
"""Seconds after which who waits for room looks again: time quotas come back without anybody ending."""

Foreseen = list[tuple[Guest, Plan | Refusal]]


class Admission:
    """Lets guests in; those of one owner that wait for room are served in the order in which they came.

    `foresee` tells what would become of guests, `stop` ends some, `policy` is the one in force.
    """

    def __init__(
        self,
        driver: Driver,
        foresee: Callable[[Sequence[Guest]], Foreseen],
        stop: Callable[[Iterable[str]], Awaitable[None]],
        policy: Callable[[], Policy],
    ) -> None:
        self._driver = driver
        self._foresee = foresee
        self._stop = stop
        self._policy = policy
        self._queue: list[Sequence[Guest]] = []
        self._waiting: set[str] = set()
        self._given_up: set[str] = set()

    async def admitted(self, guests: Sequence[Guest]) -> Foreseen:
        """Return what will become of the guests once all of them can be started. Raises RefusedError if they cannot."""
        told, names = False, {guest.spec.name for guest in guests}
        self._queue.append(guests)
        try:
            while True:
                if names & self._given_up:
                    raise RefusedError(f"{', '.join(sorted(names))}: not started, for the wait for room was given up")
                foreseen = self._foresee(guests)
                refused = [(guest, what) for guest, what in foreseen if isinstance(what, Refusal)]
                over = self._policy().quotas.over
                if not refused and not (over is OverQuota.QUEUE and self._comes_later(guests)):
                    return foreseen
                lasting = any(not is_quota(reason) for _, refusal in refused for reason in refusal.reasons)
                if lasting or over is OverQuota.REFUSE:
                    raise _refused(refused)
                if over is OverQuota.QUEUE:
                    self._tell(refused if not told else ())
                    told = True
                    self._waiting |= names
                    await first_of(self._driver.settled.wait(), self._driver.clock.sleep(LOOK_AGAIN))
                elif not await self._made_room(guests):
                    raise _refused(refused)
        finally:
            self._waiting -= names
            self._given_up -= names
            self._queue = [other for other in self._queue if other is not guests]

    def give_up(self, name: str) -> bool:
        """Have the start refused that waits for room with this guest among its guests; False if there is none."""
        if name not in self._waiting:
            return False
        self._given_up.add(name)
        self._driver.settled.set()
        return True

    def _comes_later(self, guests: Sequence[Guest]) -> bool:
        """Whether others of the same owners wait for room since before."""
        owners = {guest.owner for guest in guests}
        for other in self._queue:
            if other is guests:
                return False
            if not owners.isdisjoint(guest.owner for guest in other):
                return True
        return False

    async def _made_room(self, guests: Sequence[Guest]) -> bool:
        """End as few of the oldest guests of their owner as make room; False, and none has ended, if none do."""
        driver = self._driver
        snapshot, owners = driver.scheduler.snapshot(driver.now()), {guest.owner for guest in guests}
        oldest = oldest_first(snapshot, driver.scheduler.account)
        mine = [name for name in oldest if snapshot.guests[name].owner in owners]
        enders = room_makers(snapshot, [guest.request() for guest in guests], mine)
        for name in enders:
            why = f"the oldest guest of its owner makes room for {guests[0].spec.name}"
            driver.observer.told(Notice(Happening.OUT_OF_QUOTA, name, driver.now(), why=why))
        await self._stop(enders)
        return bool(enders)

    def _tell(self, refused: Iterable[tuple[Guest, Refusal]]) -> None:
        for guest, refusal in refused:
            notice = Notice(Happening.QUEUED, guest.spec.name, self._driver.now(), why=str(refusal))
            self._driver.observer.told(notice)


def _refused(refused: Iterable[tuple[Guest, Refusal]]) -> RefusedError:
    return RefusedError("nothing was started: " + " | ".join(f"{guest.spec.name}: {what}" for guest, what in refused))

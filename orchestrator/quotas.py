"""Sees to it that running guests keep to the policy over time, and that what they have used outlives this process.

What is to be done is `core.timekeeping`'s word; here the clocks are read, guests stopped, and accounts written down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from orchestrator.core.account import Account, Moment
from orchestrator.core.agenda import Change
from orchestrator.core.foresight import better_places, oldest_first
from orchestrator.core.misfits import misfits
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.requests import MoveGuest
from orchestrator.core.timekeeping import Overdue
from orchestrator.driver import Driver
from orchestrator.errors import OrchestratorError
from orchestrator.launch import NANOSECONDS
from orchestrator.wall_clock import Calendar

SAVE_EVERY = 10 * NANOSECONDS
"""Nanoseconds between two times at which accounts are written down: what a crash forgets at most."""

_SHORTEST = 0.02
"""Seconds from one look to the next: no quota is worth more of the scheduler's core."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """By which clock time quotas are kept, and the account that goes on; without a calendar they are not."""

    calendar: Calendar | None = None
    account: Account | None = None


NO_ACCOUNTING = Accounting()


class QuotaKeeper:
    """Looks after the quotas of time while `run` is running; `stop` ends guests, each with its grace."""

    def __init__(self, driver: Driver, calendar: Calendar, stop: Callable[[Iterable[str]], Awaitable[None]]) -> None:
        self._driver = driver
        self._calendar = calendar
        self._stop = stop
        self._ending: set[str] = set()
        self._saved = driver.now()

    def moment(self) -> Moment:
        """Return what the clocks say."""
        return moment_of(self._calendar, self._driver.now())

    async def run(self) -> NoReturn:
        """Look whenever somebody may be over a quota, and once a second."""
        while True:
            again = self.look()
            await self._driver.clock.sleep(max(_SHORTEST, (again - self._driver.now()) / NANOSECONDS))

    def look(self) -> int:
        """Look once; return when to look again."""
        overdue, again = self._driver.scheduler.keep_quotas(self.moment())
        self._driver.go_on()
        for one in overdue:
            self.end(one)
        if self._driver.now() - self._saved >= SAVE_EVERY:
            self.save()
        return again

    def end(self, one: Overdue) -> None:
        """Begin to stop a guest, unless that has begun."""
        if one.guest not in self._ending:
            self._ending.add(one.guest)
            self._driver.begin(self._end(one.guest))

    def save(self) -> None:
        """Have written down what everybody has used."""
        self._saved = self._driver.now()
        self._driver.records.keep_accounts(self._driver.scheduler.account.dump(self._saved))

    def rearrange(self, change: Change, why: str) -> None:
        """Do about running guests what a change of the policy wants; each of them is told why."""
        scheduler, now = self._driver.scheduler, self._driver.now()
        snapshot = scheduler.snapshot(now)
        if change is Change.DRAIN:
            for guest, reasons in misfits(snapshot, oldest_first(snapshot, scheduler.account)):
                said = f"{why}, and it does not fit any more: {'; '.join(map(str, reasons))}"
                self._driver.observer.told(Notice(Happening.OUT_OF_QUOTA, guest, now, why=said))
                self.end(Overdue(guest, said))
        elif change is Change.MOVE:
            for request in better_places(snapshot):
                self._driver.observer.told(Notice(Happening.MOVES, request.guest, now, why=f"{why}: to a better place"))
                self._driver.begin(self._move(request))

    async def _end(self, guest: str) -> None:
        try:
            with contextlib.suppress(OrchestratorError):  # told of with the guest, and tried again at the next look
                await self._stop([guest])
        finally:
            self._ending.discard(guest)

    async def _move(self, request: MoveGuest) -> None:
        with contextlib.suppress(OrchestratorError):  # it stays where it is, and what went wrong is told of
            await self._driver.ask(request)


def moment_of(calendar: Calendar, monotonic: int) -> Moment:
    """Return what the clocks say at this moment of the monotonic one."""
    local = calendar.local()
    since = ((local.hour * 60 + local.minute) * 60 + local.second) * NANOSECONDS + local.microsecond * 1000
    return Moment(monotonic, calendar.boot, calendar.wall(), local.toordinal(), since)

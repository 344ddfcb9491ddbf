"""Quotas kept over time: running guests are charged, warned, throttled or to be stopped, and nobody starves unseen.

A guest of somebody who has used up a time quota loses its turn and gets no other until there is time again
(`OutOfTime.THROTTLE`), or is to be stopped; an exclusive one always is, for it would keep its cores from everybody.
Before that it is told once that `Quotas.warn_at` percent are used. The same goes for guests that are there for too
long, and for exclusive ones beyond `Starvation.exclusive_cores` while others wait.

Pure: what the clocks say comes in, who is to be stopped comes out. Growth: linear in the guests and users, beside
sorting those that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from orchestrator.core.account import Account, Moment, TimeUsed
from orchestrator.core.books import Books
from orchestrator.core.durations import Duration, about
from orchestrator.core.limits import OutOfTime
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.core.quota import parties, time_limits, time_of
from orchestrator.core.snapshot import Known, Standing
from orchestrator.core.turnover import Turnover

LOOK_EVERY = Duration.parse("1 s")
"""So often it is looked at the latest whether everybody keeps to his quotas."""

_ENDS = (Happening.DONE, Happening.UNDONE, Happening.GONE)


class Overdue(NamedTuple):
    """A guest that is to be stopped, and why."""

    guest: str
    why: str


class Timekeeper:
    """Follows the scheduler's notices into the account; `look` finds who is over his quotas.

    `explain` says why a guest waits, for the alarm of one that has waited for long.
    """

    def __init__(
        self, policy: Policy, books: Books, turnover: Turnover, account: Account, explain: Callable[[str, int], str]
    ) -> None:
        self.account = account
        self._policy = policy
        self._books = books
        self._turnover = turnover
        self._explain = explain
        self._read = 0
        self._told: set[tuple[str, ...]] = set()
        self._alarmed: set[tuple[str, int]] = set()
        self._pressed: dict[str, int] = {}
        self._looked = 0

    def reload(self, policy: Policy) -> None:
        """Keep to another policy from now on."""
        self._policy = policy
        self.account.set_window(policy.quotas.share_window)

    def adopted(self, guest: str, *, running: bool, now: int) -> None:
        """Note a guest that was found."""
        known = self._books[guest]
        cores = known.kept if known.exclusive else self._turnover.handovers.cores(guest) if running else ()
        self.account.found(known.owner, guest, len(cores), now)
        if cores:
            self.account.runs(known.owner, guest, len(cores), now)

    def follow(self) -> None:
        """Charge for what has been told since the last call; make it before the notices are taken away."""
        notices = self._turnover.notices
        for notice in notices[self._read :]:
            self._take_in(notice)
        self._read = len(notices)

    def taken_away(self) -> None:
        """Note that the notices have been taken away."""
        self._read = 0

    def spent(self, now: int) -> Mapping[str, TimeUsed]:
        """Return what each user has used of time until now."""
        self.follow()
        return self.account.spent(now)

    def look(self, moment: Moment) -> tuple[list[Overdue], int]:
        """Throttle and release guests; return those that are to be stopped, and when to look again at the latest."""
        now = moment.monotonic
        self.follow()
        self.account.passes(moment)
        again = [now + LOOK_EVERY]
        overdue = {one.guest: one for one in self._too_long(now, again)}
        most = self._policy.starvation.exclusive_cores
        if most is not None:
            overdue |= {one.guest: one for one in self._too_many_cores(most, now)}
        overdue |= {one.guest: one for one in self._out_of_time(now, again)}
        for one in overdue.values():
            self._tell_once(one.guest, one.why, Happening.OUT_OF_QUOTA, now)
        self._alarm(now, again)
        self._looked = now
        return list(overdue.values()), max(now + 1, min(again))

    # The account.

    def _take_in(self, notice: Notice) -> None:
        guest, at = notice.guest, notice.at
        known = self._books.get(guest)
        if known is None:
            if notice.what in _ENDS:
                self.account.forget(guest, at)
                self._told = {entry for entry in self._told if entry[0] != guest}
        elif notice.what is Happening.TURN_BEGAN:
            self.account.runs(known.owner, guest, len(known.kept or notice.cores), at)
        elif notice.what is Happening.TURN_ENDED and not known.exclusive:
            self.account.stands(guest, at)
        elif known.exclusive and notice.what in (Happening.DONE, Happening.RESEATED):
            self.account.runs(known.owner, guest, len(known.kept), at)

    # Core time.

    def _out_of_time(self, now: int, again: list[int]) -> Iterator[Overdue]:
        """Throttle or release each shared guest, and yield those to be stopped."""
        spent, rates = self.account.spent(now), self.account.rate()
        judged: dict[str, tuple[str, str]] = {}
        for guest, known in self._living():
            if known.owner not in judged:
                judged[known.owner] = self._judge(known.owner, spent, rates, now, again)
            over, warned = judged[known.owner]
            if warned:
                self._tell_once(guest, warned, Happening.WARNED, now)
            else:
                self._told = {entry for entry in self._told if entry[:2] != (guest, Happening.WARNED)}
            if over and (known.exclusive or self._policy.quotas.out_of_time is OutOfTime.STOP):
                yield Overdue(guest, over)
            elif not known.exclusive and bool(over) is not bool(known.throttled):
                self._throttle(guest, over, now)

    def _judge(
        self, owner: str, spent: Mapping[str, TimeUsed], rates: Mapping[str, int], now: int, again: list[int]
    ) -> tuple[str, str]:
        """Return why this owner has no time any more, and why he is to be warned; both empty if all is well."""
        quotas, pool = self._policy.quotas, len(self._books.pool)
        over, warned = [], []
        for party in parties(self._policy, owner):
            used = time_of(party, spent)
            rate = sum(cores for name, cores in rates.items() if party.has(name))
            for rule, limit, had in time_limits(party.limits, quotas.share_window, pool, used):
                said = f"{rule} of {party.name}: {about(had)} of {about(limit)} are used"
                if had >= limit:
                    over.append(said)
                    again.append(self.account.next_relief(now))
                elif rate:
                    again.append(now + -(-(limit - had) // rate))
                if had * 100 >= limit * quotas.warn_at:
                    warned.append(f"{rule} of {party.name}: {quotas.warn_at} % of {about(limit)} are used")
        return "; ".join(over), "; ".join(warned)

    def _throttle(self, guest: str, why: str, now: int) -> None:
        known = self._books[guest]
        self._books.throttle(guest, why)
        if why:
            self._turnover.hold(guest, now)
        else:
            self._turnover.let_go(guest, now)
        what = Happening.THROTTLED if why else Happening.RELEASED
        said = why or f"there is time again after: {known.throttled}"
        self._turnover.notices.append(Notice(what, guest, now, why=said))

    # How long guests are there, and keep cores.

    def _too_long(self, now: int, again: list[int]) -> Iterator[Overdue]:
        for guest, known in self._living():
            limits = [
                (party.name, party.limits.longest_run)
                for party in parties(self._policy, known.owner)
                if party.limits.longest_run is not None
            ]
            for name, limit in limits:
                age = self.account.age(guest, now)
                if age * 100 >= limit * self._policy.quotas.warn_at:
                    self._tell_once(
                        guest, f"longest run of {name}: it ends after {limit}", Happening.WARNED_OF_END, now
                    )
                if age >= limit:
                    yield Overdue(guest, f"longest run of {name}: it has been there for {limit}")
                else:
                    again.append(now + limit - age)

    def _too_many_cores(self, most: int, now: int) -> Iterator[Overdue]:
        """Yield the latest exclusive guests of those who keep too many cores for too long while others wait."""
        rules = self._policy.starvation
        kept: dict[str, list[tuple[int, str, int]]] = {}
        for guest, known in self._living():
            if known.exclusive:
                kept.setdefault(known.owner, []).append((self.account.age(guest, now), guest, len(known.kept)))
        waiting = {wait.owner for wait in self._turnover.rotation.waits(now)}
        for owner in [owner for owner in self._pressed if owner not in kept]:
            del self._pressed[owner]
        for owner, guests in kept.items():
            beyond = sum(cores for *_, cores in guests) - most
            if beyond <= 0:
                self._pressed.pop(owner, None)
                continue
            pressed = self._pressed.get(owner, 0) + (now - self._looked if waiting - {owner} else 0)
            self._pressed[owner] = pressed
            said = f"{owner} keeps more than {most} cores while others wait"
            for _, guest, cores in sorted(guests):
                if beyond <= 0:
                    break
                beyond -= cores
                if pressed * 100 >= rules.exclusive_time * self._policy.quotas.warn_at:
                    self._tell_once(
                        guest, f"{said}: it ends after {rules.exclusive_time} of that", Happening.WARNED_OF_END, now
                    )
                if pressed >= rules.exclusive_time:
                    yield Overdue(guest, f"{said}, for {rules.exclusive_time}")

    def _alarm(self, now: int, again: list[int]) -> None:
        """Tell of guests that have waited nearly as long as they may have to."""
        percent, waits = self._policy.starvation.alarm, self._turnover.rotation.waits(now)
        self._alarmed &= {(wait.guest, wait.since) for wait in waits}
        for wait in waits:
            if wait.latest is None or (wait.guest, wait.since) in self._alarmed:
                continue
            at = wait.since + (wait.latest - wait.since) * percent // 100
            if at > now:
                again.append(at)
                continue
            self._alarmed.add((wait.guest, wait.since))
            said = f"it has waited {about(now - wait.since)} of {about(wait.latest - wait.since)} at most"
            why = f"{said}: {self._explain(wait.guest, now)}"
            self._turnover.notices.append(Notice(Happening.ALARM, wait.guest, now, since=wait.since, why=why))

    def _living(self) -> list[tuple[str, Known]]:
        leaving = (Standing.STOPPING, Standing.QUARANTINED)
        return [(guest, known) for guest, known in self._books.items() if known.standing not in leaving]

    def _tell_once(self, guest: str, why: str, what: Happening, now: int) -> None:
        if (guest, what, why) not in self._told:
            self._told.add((guest, what, why))
            self._turnover.notices.append(Notice(what, guest, now, why=why))

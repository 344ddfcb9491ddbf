"""The account of time: who has used how much of the pool, and how often he has started a guest.

**Account time** is what everything is counted in: nanoseconds that pass with the scheduler's monotonic clock, and that
go on over its restarts. When a scheduler comes back within the same boot of the host, as much account time has passed
as the monotonic clock says, which nobody can set. After a reboot there is only the wall clock to ask: as much has
passed as it says, nothing if it says that it went back. Who is found running then has run all that time, and is charged
for it; what was not yet written down when a scheduler was killed is lost, some seconds at most.

**Core time** is charged when it is confirmed: shared guests for their turns, exclusive ones for the cores they keep,
from the first turn to the end of their process. It is added up for the day, and in `BUCKETS` parts of the sliding
window; a part is forgotten as a whole, when the last of it has left the window.

**Days** begin by the wall clock, budgets last by account time: a new day begins when the wall clock shows another date
*and* at least `LEAST_DAY` of account time has passed since the present one began. So a clock that is set forward or
back by an hour (summer time, an operator, ntp) and back again begins a day once: after a step over midnight and back
the date differs, but no new day begins, for the present one is young. A clock that is set by days cannot grant more
than one budget in any `LEAST_DAY`; nor can it take one away for longer than that, whatever date it shows, since any
date that differs will do. The first day counts from its midnight by the wall clock.

Growth: each call takes constant time, but for `settle` (the guests that run), `spent` (the users) and `dump` (those
that have changed since).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.core.durations import Duration

BUCKETS = 60
LEAST_DAY = Duration.parse("22 h")
HOUR = Duration.parse("1 h")
CLOCK = ""
"""The key of what is dumped of the account itself; no user is named so."""


@dataclass(frozen=True, slots=True)
class TimeUsed:
    """What somebody has used of time: core time of this day and of the sliding window, starts of the last hour.

    Core time is in core-nanoseconds.
    """

    today: int = 0
    in_window: int = 0
    starts: int = 0

    def __add__(self, other: TimeUsed) -> TimeUsed:
        return TimeUsed(self.today + other.today, self.in_window + other.in_window, self.starts + other.starts)


class Moment(NamedTuple):
    """What the clocks say at once: monotonic nanoseconds, which boot of the host they count in, wall-clock nanoseconds.

    `day` numbers the date that the wall clock shows here, `since_midnight` is how far that day has come.
    """

    monotonic: int
    boot: str
    wall: int
    day: int
    since_midnight: int


@dataclass(slots=True)
class _Owner:
    """`buckets` are by their beginning, `starts` are moments; all in account time."""

    day: int = 0
    today: int = 0
    buckets: dict[int, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Run:
    owner: str
    cores: int
    since: int


class Account:
    """Mutable, with one writer, the scheduler. `now` is monotonic nanoseconds and never less than before."""

    def __init__(self, window: int, moment: Moment | None = None, saved: Mapping[str, str] | None = None) -> None:
        """Begin at a moment (the first that `passes`, if none is given), or go on from what was dumped.

        Raises ValueError if that cannot be read.
        """
        self._window, self._width = window, max(1, window // BUCKETS)
        self._begun = moment is not None
        moment = moment or Moment(0, "", 0, 0, 0)
        self._moment, self._offset = moment, -moment.monotonic
        self._day, self._day_began, self._date = 0, -moment.since_midnight, moment.day
        self._owners: dict[str, _Owner] = {}
        self._runs: dict[str, _Run] = {}
        self._since: dict[str, int] = {}
        self._changed: set[str] = set()
        self._resumed_at: int | None = None
        if saved and CLOCK in saved:
            self._resume(saved, moment)

    # What happens.

    def started(self, owner: str, guest: str, now: int) -> None:
        """Note that a guest is started."""
        self._since[guest] = self._at(now)
        self._owner(owner).starts.append(self._at(now))

    def found(self, owner: str, guest: str, cores: int, now: int) -> None:
        """Note a guest that ran before the scheduler did, on so many cores: it has run ever since the last dump."""
        before = self._at(now) if self._resumed_at is None else self._resumed_at
        self._since.setdefault(guest, before)
        if cores:
            self._charge(owner, cores, before, self._at(now))

    def runs(self, owner: str, guest: str, cores: int, now: int) -> None:
        """Charge a guest for so many cores from now on."""
        self.stands(guest, now)
        self._runs[guest] = _Run(owner, cores, self._at(now))

    def stands(self, guest: str, now: int) -> None:
        """Charge a guest no more; fine if it is not."""
        run = self._runs.pop(guest, None)
        if run is not None:
            self._charge(run.owner, run.cores, run.since, self._at(now))

    def forget(self, guest: str, now: int) -> None:
        """Note that a guest is no more."""
        self.stands(guest, now)
        self._since.pop(guest, None)

    def settle(self, now: int) -> None:
        """Charge everybody who runs for the time until now."""
        at = self._at(now)
        for run in self._runs.values():
            self._charge(run.owner, run.cores, run.since, at)
            run.since = at

    def passes(self, moment: Moment) -> bool:
        """Note what the clocks say; return whether a new day has begun with that."""
        self.settle(moment.monotonic)
        self._moment, at = moment, self._at(moment.monotonic)
        if not self._begun:
            self._begun, self._date, self._day_began = True, moment.day, at - moment.since_midnight
        if moment.day == self._date or at - self._day_began < LEAST_DAY:
            return False
        self._date, self._day_began = moment.day, at
        self._day += 1
        return True

    def set_window(self, window: int) -> None:
        """Count in a sliding window of another length from now on; what was counted stays where it was."""
        if window == self._window:
            return
        self._window, self._width = window, max(1, window // BUCKETS)
        for name, owner in self._owners.items():
            buckets: dict[int, int] = {}
            for begin, amount in owner.buckets.items():
                there = begin - begin % self._width
                buckets[there] = buckets.get(there, 0) + amount
            owner.buckets = buckets
            self._changed.add(name)

    # What is known.

    def spent(self, now: int) -> dict[str, TimeUsed]:
        """Return what each user has used until now, those who run included."""
        self.settle(now)
        at = self._at(now)
        found = {name: self._used(owner, at) for name, owner in self._owners.items()}
        for name in [name for name, used in found.items() if used == TimeUsed() and not self._owners[name].buckets]:
            del self._owners[name], found[name]
            self._changed.add(name)
        return found

    def rate(self) -> dict[str, int]:
        """Return on how many cores each user's guests are charged now."""
        rates: dict[str, int] = {}
        for run in self._runs.values():
            rates[run.owner] = rates.get(run.owner, 0) + run.cores
        return rates

    def age(self, guest: str, now: int) -> int:
        """Return for how long a guest has been there; 0 if it is not."""
        return self._at(now) - self._since.get(guest, self._at(now))

    def next_relief(self, now: int) -> int:
        """Return when the oldest part of any window is forgotten next: when who has used it up may have time again."""
        at = self._at(now)
        ends = [begin + self._width + self._window for owner in self._owners.values() for begin in owner.buckets]
        return min((end for end in ends if end > at), default=at + self._width) - self._offset

    # What is kept.

    def dump(self, now: int) -> dict[str, str]:
        """Return what to keep of those who have changed since the last dump, as texts by key; empty: forget the key."""
        self.settle(now)
        changed, self._changed = self._changed, set()
        texts = {name: _text(self._owners[name]) if name in self._owners else "" for name in sorted(changed)}
        clock = {
            "at": self._at(now),
            "monotonic": now,
            "boot": self._moment.boot,
            "wall": self._moment.wall + now - self._moment.monotonic,
            "day": self._day,
            "day_began": self._day_began,
            "date": self._date,
            "since": self._since,
        }
        return {**texts, CLOCK: json.dumps(clock, sort_keys=True)}

    def _resume(self, saved: Mapping[str, str], moment: Moment) -> None:
        try:
            clock = json.loads(saved[CLOCK])
            same = clock["boot"] == moment.boot
            passed = max(0, moment.monotonic - clock["monotonic"] if same else moment.wall - clock["wall"])
            self._resumed_at = int(clock["at"])
            self._offset = self._resumed_at + passed - moment.monotonic
            self._day, self._day_began, self._date = int(clock["day"]), int(clock["day_began"]), int(clock["date"])
            self._since = {str(guest): int(at) for guest, at in clock["since"].items()}
            self._owners = {name: _owner(json.loads(text)) for name, text in saved.items() if name != CLOCK and text}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"it is no account: {error!r}") from None
        self.passes(moment)

    def keep_only(self, guests: Iterable[str]) -> None:
        """Forget when guests began that are not among these, after all that run have been found."""
        known = set(guests)
        self._since = {guest: at for guest, at in self._since.items() if guest in known}

    # How it is counted.

    def _at(self, now: int) -> int:
        return now + self._offset

    def _owner(self, name: str) -> _Owner:
        self._changed.add(name)
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = _Owner(day=self._day)
        return owner

    def _charge(self, name: str, cores: int, since: int, until: int) -> None:
        if until <= since:
            return
        owner = self._owner(name)
        if owner.day != self._day:
            owner.day, owner.today = self._day, 0
        owner.today += cores * (until - max(since, self._day_began))
        since = max(since, until - self._window - self._width)
        while since < until:
            begin = since - since % self._width
            end = min(until, begin + self._width)
            owner.buckets[begin] = owner.buckets.get(begin, 0) + cores * (end - since)
            since = end

    def _used(self, owner: _Owner, at: int) -> TimeUsed:
        for begin in [begin for begin in owner.buckets if begin + self._width <= at - self._window]:
            del owner.buckets[begin]
        owner.starts = [start for start in owner.starts if start > at - HOUR]
        today = owner.today if owner.day == self._day else 0
        return TimeUsed(today, sum(owner.buckets.values()), len(owner.starts))


def _text(owner: _Owner) -> str:
    buckets = {str(begin): amount for begin, amount in owner.buckets.items()}
    value = {"day": owner.day, "today": owner.today, "buckets": buckets, "starts": owner.starts}
    return json.dumps(value, sort_keys=True)


def _owner(value: Any) -> _Owner:
    buckets = {int(begin): int(amount) for begin, amount in value["buckets"].items()}
    return _Owner(int(value["day"]), int(value["today"]), buckets, [int(start) for start in value["starts"]])

"""What a simulation is measured by: fairness, waits against their bounds, and what the cores were used for.

`Measures` takes everything down as it happens, and `report` makes the figures of it. Moments and lengths are in
nanoseconds. Shared guests are counted in the pool's units (a core, or a physical core with its siblings); what is
reported is in cores.

Fairness is Jain's index (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984) over what each got divided by what it was due
(see `entitlement`): 1 if all got the same part of it, 1/n if one of n got everything.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from orchestrator.core.entitlement import Entitlements
from orchestrator.simulator.report import (
    Incident,
    OwnerShare,
    Part,
    Report,
    Use,
    Waits,
    WorstWait,
    fairness,
    percentile,
)
from orchestrator.simulator.scenario import DEFAULT_WEIGHT, Scenario

__all__ = ["LEAST_TURNS", "MOST_REASONS", "Measures", "Report"]

LEAST_TURNS = 20
"""Who is due fewer slices of its need is left out of Jain's index: the rounding to whole turns would be measured."""

MOST_REASONS = 10
"""So many distinct reasons of refusals, and kinds of failures, are kept."""


class _Guest(NamedTuple):
    owner: str
    priority: int
    need: int


class Measures:
    """Everything that is taken down. `ran` and `waited` are constant and quick; for others see `Entitlements`.

    The pool begins with so many units.
    """

    def __init__(self, scenario: Scenario, units: int) -> None:
        self._title = scenario.title
        self._slice = int(scenario.policy.rotation.slice)
        self._threads = 1 if scenario.policy.cores.split_cores else scenario.host.threads
        self._entitlements = Entitlements(units)
        self._units = units
        self._resized = self._capacity = 0
        self._weights: dict[str, int] = {}
        self._guests: dict[str, _Guest] = {}
        self._got: defaultdict[str, int] = defaultdict(int)
        self._stopped: dict[str, int] = {}
        self._waits = array("q")
        self._longest: defaultdict[str, int] = defaultdict(int)
        self._worst = WorstWait("", 0, 1)
        self._beyond = 0
        self._refused = 0
        self._reasons: dict[str, Incident] = {}
        self._failures: dict[str, Incident] = {}
        self._exclusive = self._quarantined = self._handover = self._handovers = 0
        self._policy = scenario.policy
        for owner in scenario.owners:
            self.weigh_owner(owner.name, owner.weight, 0)

    def enter(self, guest: str, owner: str, weight: int, priority: int, need: int, now: int) -> None:
        """Note that a shared guest that needs `need` units can run from now on; it may come again after it left."""
        if owner not in self._weights:
            self.weigh_owner(owner, self._policy.weight(owner), now)
        self._guests[guest] = _Guest(owner, priority, need)
        self._stopped[guest] = now
        self._entitlements.enter(guest, owner, weight, priority, need, now)

    def leave(self, guest: str, now: int) -> None:
        """Note that a shared guest is to run no more, or not for now."""
        self._entitlements.leave(guest, now)

    def resize(self, units: int, now: int) -> None:
        """Note how many units shared guests have from now on."""
        self._capacity += self._units * (now - self._resized)
        self._units, self._resized = units, now
        self._entitlements.resize(units, now)

    def weigh_owner(self, owner: str, weight: int, now: int) -> None:
        """Note an owner's weight from now on."""
        self._weights[owner] = weight
        self._entitlements.weigh_owner(owner, weight, now)

    def ran(self, guest: str, need: int, begin: int, end: int) -> None:
        """Note that a shared guest has run on `need` units, as its stop confirms."""
        self._got[guest] += need * (end - begin)
        self._stopped[guest] = end

    def waited(self, guest: str, since: int, until: int, latest: int) -> None:
        """Note that a wait has ended with a turn, which was promised by `latest`.

        It counts from when the guest entered or last ran, if that is before `since`: whoever decides may believe that
        a guest had its turn which could not even begin.
        """
        lasted = until - min(since, self._stopped.get(guest, since))
        self._waits.append(lasted)
        self._longest[guest] = max(self._longest[guest], lasted)
        self._compare(guest, lasted, latest - since)

    def exclusive(self, cores: int, begin: int, end: int) -> None:
        """Note that an exclusive guest has run on so many cores."""
        self._exclusive += cores * (end - begin)

    def quarantined(self, cores: int, begin: int, end: int) -> None:
        """Note that so many cores were kept from everybody, since a guest on them did not confirm."""
        self._quarantined += cores * (end - begin)

    def handover(self, guest: str, cores: int, lasted: int) -> None:
        """Note that so many cores were being handed over to a guest; an exclusive one's are not the shared pool's."""
        if guest in self._guests:
            self._handover += cores * lasted
            self._handovers += 1

    def refused(self, guest: str, reason: str, now: int) -> None:
        """Note that a guest was refused, and why."""
        self._refused += 1
        _count(self._reasons, reason, guest, now)

    def failed(self, kind: str, guest: str, now: int) -> None:
        """Note that a guest has failed in some way."""
        _count(self._failures, kind, guest, now)

    def report(self, end: int, still_waiting: Iterable[tuple[str, int, int | None]]) -> Report:
        """Return the figures up to `end`. `still_waiting` are waits that go on: the guest, since when, and the bound.

        Call it once. Growth: n log n in the waits.
        """
        self.resize(self._units, end)
        due = self._entitlements.due(end)
        waits = self._finish_waits(end, still_waiting)
        shares = sorted(self._shares(due), key=lambda share: (share.ratio is None, share.ratio or 0.0, share.owner))
        return Report(
            title=self._title,
            duration=end,
            guests=len(self._guests),
            owners=len(shares),
            refused=self._refused,
            reasons=_by_count(self._reasons),
            failures=_by_count(self._failures),
            handovers=self._handovers,
            exclusive=self._exclusive,
            quarantined=self._quarantined,
            among_guests=fairness(self._guest_parts(due)),
            among_owners=fairness(self._owner_parts(due)),
            use=self._use(),
            waits=waits,
            shares=tuple(shares),
        )

    def _compare(self, guest: str, lasted: int, allowed: int) -> None:
        _, longest, bound = self._worst
        if lasted * bound > longest * allowed:
            self._worst = WorstWait(guest, lasted, allowed)
        if lasted > allowed:
            self._beyond += 1

    def _finish_waits(self, end: int, still_waiting: Iterable[tuple[str, int, int | None]]) -> Waits:
        unfinished = 0
        for guest, since, latest in still_waiting:
            unfinished += 1
            lasted = end - min(since, self._stopped.get(guest, since))
            self._longest[guest] = max(self._longest[guest], lasted)
            if latest is not None:
                self._compare(guest, lasted, latest - since)
        ordered = sorted(self._waits)
        return Waits(
            count=len(ordered),
            p50=percentile(ordered, 50),
            p90=percentile(ordered, 90),
            p99=percentile(ordered, 99),
            longest=ordered[-1] if ordered else 0,
            worst=self._worst if self._worst.guest else None,
            beyond=self._beyond,
            open=unfinished,
        )

    def _guest_parts(self, due: Mapping[str, float]) -> Iterator[Part]:
        for name, guest in self._guests.items():
            yield Part(guest.priority, self._got[name], due[name], LEAST_TURNS * self._slice * guest.need)

    def _owner_parts(self, due: Mapping[str, float]) -> Iterator[Part]:
        """Yield each owner's part of each class, to be judged if it is due enough for the widest of its guests."""
        parts: dict[tuple[int, str], Part] = {}
        for guest, one in zip(self._guests.values(), self._guest_parts(due), strict=True):
            key = (guest.priority, guest.owner)
            so_far = parts.get(key, Part(guest.priority, 0, 0, 0))
            least = max(so_far.least, one.least)
            parts[key] = Part(guest.priority, so_far.got + one.got, so_far.due + one.due, least)
        yield from parts.values()

    def _shares(self, due: Mapping[str, float]) -> Iterator[OwnerShare]:
        of: defaultdict[str, list[str]] = defaultdict(list)
        for name, guest in self._guests.items():
            of[guest.owner].append(name)
        for owner, names in of.items():
            yield OwnerShare(
                owner=owner,
                guests=len(names),
                weight=self._weights.get(owner, DEFAULT_WEIGHT),
                due=sum(due[name] for name in names) * self._threads,
                got=sum(self._got[name] for name in names) * self._threads,
                longest=max(self._longest[name] for name in names),
            )

    def _use(self) -> Use:
        capacity = self._capacity * self._threads
        running = sum(self._got.values()) * self._threads / capacity if capacity else 0.0
        handover = self._handover / capacity if capacity else 0.0
        return Use(capacity=capacity, running=running, handover=handover, idle=max(0.0, 1.0 - running - handover))


def _count(incidents: dict[str, Incident], what: str, guest: str, now: int) -> None:
    known = incidents.get(what, Incident(what, 0, guest, now))
    if known.times or len(incidents) < MOST_REASONS:
        incidents[what] = known._replace(times=known.times + 1)


def _by_count(incidents: Mapping[str, Incident]) -> tuple[Incident, ...]:
    return tuple(sorted(incidents.values(), key=lambda incident: -incident.times))

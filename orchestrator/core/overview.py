"""What everybody is due and has used at one moment, told from a snapshot. Pure; nothing is decided here.

Growth: n log n in the guests, and linear in the users.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import NamedTuple

from orchestrator.core.account import TimeUsed
from orchestrator.core.entitlement import Entitlements
from orchestrator.core.limits import Limits
from orchestrator.core.locks import Hold
from orchestrator.core.quota import Party, Usage, parties, time_limits, time_of, usage
from orchestrator.core.sharing import Wait
from orchestrator.core.snapshot import Snapshot, gang_width

SPAN = 30_000_000_000
"""Nanoseconds of the past over which it is told who has got how much of his due."""


class Survey(NamedTuple):
    """The scheduler's state at one moment: guests, who waits in which order, and who holds which cores since when."""

    snapshot: Snapshot
    waits: tuple[Wait, ...]
    holds: tuple[Hold, ...]


class Got(NamedTuple):
    """How many cores a guest has had of late, on the average, and how many it was due."""

    got: float
    due: float


class QuotaUse(NamedTuple):
    """How much of a rule a party has used; in `unit`: count, bytes, or core-nanoseconds."""

    party: str
    rule: str
    used: int
    limit: int
    unit: str


class UserUse(NamedTuple):
    """What one user has: guests and those that run, the cores that are kept for him, memory and core time."""

    user: str
    guests: int
    running: int
    exclusive_cores: int
    memory: int
    today: int


def wanted(snapshot: Snapshot) -> dict[str, float]:
    """Return of how many cores each guest is due now, by the policy's weights; of none while it takes no turns."""
    units = snapshot.units
    division = Entitlements(snapshot.usable.bit_count())
    for owner in {known.owner for known in snapshot.guests.values()}:
        division.weigh_owner(owner, snapshot.policy.weight(owner), 0)
    found = {}
    for name, known in snapshot.guests.items():
        if known.takes_turns and not known.throttled:
            need = units.need(gang_width(known.spec, units))
            division.enter(name, known.owner, known.spec.weight, known.priority, need, 0)
        else:
            found[name] = float(len(known.kept)) if known.exclusive else 0.0
    return found | {name: rate * units.threads for name, rate in division.rates().items()}


def quota_use(snapshot: Snapshot) -> Iterator[QuotaUse]:
    """Yield each limit that the policy sets for anybody who has guests or has used time, and what is used of it."""
    seen: set[str] = set()
    for owner in _owners(snapshot):
        for party in parties(snapshot.policy, owner):
            if party.name not in seen:
                seen.add(party.name)
                yield from _counts(snapshot, party)
                yield from _times(snapshot, party)


def user_use(snapshot: Snapshot) -> Iterator[UserUse]:
    """Yield what each user has, limits or not."""
    for owner in _owners(snapshot):
        used = sum((usage(known) for known in snapshot.guests.values() if known.owner == owner), Usage())
        spent = snapshot.spent.get(owner, TimeUsed())
        yield UserUse(owner, used.guests, used.running, used.exclusive_cores, used.memory, spent.today)


def _owners(snapshot: Snapshot) -> list[str]:
    return sorted({known.owner for known in snapshot.guests.values()} | snapshot.spent.keys())


def _counts(snapshot: Snapshot, party: Party) -> Iterator[QuotaUse]:
    limited = [part.name for part in fields(Usage) if getattr(party.limits, part.name) is not None]
    if not limited:
        return
    used = sum((usage(known) for known in snapshot.guests.values() if party.has(known.owner)), Usage())
    for name in limited:
        unit = "bytes" if name in ("memory", "disk") else "count"
        yield QuotaUse(party.name, name.replace("_", " "), getattr(used, name), int(_limit(party.limits, name)), unit)


def _times(snapshot: Snapshot, party: Party) -> Iterator[QuotaUse]:
    spent, window = time_of(party, snapshot.spent), snapshot.policy.quotas.share_window
    for rule, limit, had in time_limits(party.limits, window, len(snapshot.pool), spent):
        yield QuotaUse(party.name, rule, had, limit, "core-nanoseconds")
    if party.limits.starts_per_hour is not None:
        yield QuotaUse(party.name, "starts per hour", spent.starts, party.limits.starts_per_hour, "count")


def _limit(limits: Limits, name: str) -> int:
    value: int = getattr(limits, name)
    return value


class Shareout:
    """Who has got how much of late. `mark` is called now and then; the longest pause is what is not seen of dues."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, Mapping[str, int], Mapping[str, float]]] = deque()

    def mark(self, now: int, ran: Mapping[str, int], due: Mapping[str, float]) -> None:
        """Note the core time of each guest so far, and of how many cores it is due from now on."""
        self._marks.append((now, ran, due))
        while len(self._marks) > 2 and self._marks[1][0] <= now - SPAN:
            self._marks.popleft()

    def got(self, now: int, ran: Mapping[str, int]) -> dict[str, Got]:
        """Return what each guest has got since the oldest mark that knows it, if that was a while ago."""
        found = {}
        for guest, so_far in ran.items():
            own = [(at, was[guest], due.get(guest, 0.0)) for at, was, due in self._marks if guest in was]
            if own and now > own[0][0]:
                ends = [*(at for at, _, _ in own[1:]), now]
                due = sum(rate * (end - at) for (at, _, rate), end in zip(own, ends, strict=True))
                length = now - own[0][0]
                found[guest] = Got((so_far - own[0][1]) / length, due / length)
        return found


def jain(parts: Mapping[str, float]) -> float | None:
    """Return Jain's index of what each has got of its due: 1 if all got the same part; None if there is nobody.

    R. Jain, D. Chiu and W. Hawe, "A Quantitative Measure of Fairness and Discrimination", 1984.
    """
    square, squares = sum(parts.values()) ** 2, sum(part * part for part in parts.values())
    return square / (len(parts) * squares) if squares else None

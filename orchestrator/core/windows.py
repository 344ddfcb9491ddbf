"""What holds when: a policy and a time on the wall give the policy in force, and when the next one comes.

Times are local and without a zone, as `core.times` tells; nothing is asked of a clock here. Growth: the windows and
reservations, each with the days that cron has to look through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from orchestrator.core.agenda import Change, Reservation, Window
from orchestrator.core.durations import Duration
from orchestrator.core.policy import Policy

_MOST_OCCASIONS = 2000
"""Of one entry in a calendar: one that comes every minute fills no more of it than this."""


class Kind(StrEnum):
    """What is on at a time: a window, a reservation, or the time before one in which its cores are not given away."""

    WINDOW = "window"
    RESERVATION = "reservation"
    NOTICE = "notice"


class Occasion(NamedTuple):
    """One time of a window or reservation; `end` is when it is over."""

    kind: Kind
    name: str
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Effective:
    """The policy in force, with no windows or reservations left in it; what is on; when that changes next, if ever."""

    policy: Policy
    on: frozenset[tuple[Kind, str]]
    until: datetime | None


def effective(policy: Policy, wall: datetime) -> Effective:
    """Return what holds at this time: the values of open windows in the order of the file, and the cores kept."""
    on: set[tuple[Kind, str]] = set()
    changes: list[datetime] = []
    found = policy
    for window in policy.window:
        current, coming = _around(window, wall)
        if current is not None:
            on.add((Kind.WINDOW, window.name))
            found = window.set.apply(found)
        changes += _ends_and_begins(window, current, coming, ())
    kept = dict(found.cores.kept)
    for reservation in policy.reservation:
        current, coming = _around(reservation, wall)
        noticed = coming is not None and coming - _span(reservation.notice) <= wall
        if current is not None or noticed:
            on.add((Kind.RESERVATION if current is not None else Kind.NOTICE, reservation.name))
            kept[reservation.owner] = kept.get(reservation.owner, 0) + reservation.cores
        changes += _ends_and_begins(reservation, current, coming, [reservation.notice])
    cores = replace(found.cores, kept=kept)
    until = min((change for change in changes if change > wall), default=None)
    return Effective(replace(found, cores=cores, window=(), reservation=()), frozenset(on), until)


def change_between(policy: Policy, before: Effective, after: Effective) -> Change:
    """Return what becomes of running guests when one follows the other: the most that anything that changes wants."""
    wanted = {(Kind.WINDOW, window.name): window.change for window in policy.window}
    wanted |= {(Kind.RESERVATION, each.name): each.change for each in policy.reservation}
    changes = {wanted[entry] for entry in before.on ^ after.on if entry in wanted}
    return next((change for change in (Change.DRAIN, Change.MOVE) if change in changes), Change.LEAVE)


def calendar(policy: Policy, begin: datetime, end: datetime) -> list[Occasion]:
    """Return what is on between two times, by when it begins."""
    found = [
        Occasion(kind, entry.name, start, start + _span(entry.duration))
        for kind, entries in ((Kind.WINDOW, policy.window), (Kind.RESERVATION, policy.reservation))
        for entry in entries
        for start in _starts(entry, begin, end)
    ]
    return sorted(found, key=lambda occasion: (occasion.begin, occasion.end, occasion.name))


def _starts(entry: Window | Reservation, begin: datetime, end: datetime) -> Iterator[datetime]:
    current, _ = _around(entry, begin)
    if current is not None:
        yield current
    if entry.at is not None:
        if begin < entry.at.when < end:
            yield entry.at.when
    elif entry.cron is not None:
        for count, start in enumerate(entry.cron.after(begin)):
            if start >= end or count == _MOST_OCCASIONS:
                return
            yield start


def _around(entry: Window | Reservation, wall: datetime) -> tuple[datetime | None, datetime | None]:
    """Return when the present time of an entry began, if it is on, and when its next one begins, if one does."""
    if entry.at is not None:
        last, coming = (entry.at.when, None) if entry.at.when <= wall else (None, entry.at.when)
    elif entry.cron is not None:
        last, coming = entry.cron.last(wall), next(entry.cron.after(wall), None)
    else:
        return None, None
    on = last is not None and wall < last + _span(entry.duration)
    return (last if on else None), coming


def _ends_and_begins(
    entry: Window | Reservation, current: datetime | None, coming: datetime | None, notices: Iterable[Duration]
) -> Iterator[datetime]:
    if current is not None:
        yield current + _span(entry.duration)
    if coming is not None:
        yield coming
        yield from (coming - _span(notice) for notice in notices)


def _span(duration: Duration) -> timedelta:
    return timedelta(microseconds=duration // 1000)

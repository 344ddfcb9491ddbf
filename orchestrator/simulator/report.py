"""The figures of a simulation: values, what they are computed by, and the same as plain JSON values.

Lengths of time are in nanoseconds, amounts in core-nanoseconds; JSON has seconds. Cores are logical processors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_SECOND = 10**9


class Part(NamedTuple):
    """What somebody of a priority class got and was due; who is due less than `least` is not judged."""

    priority: int
    got: float
    due: float
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Jain's index of what each got of its due: the least of the `classes`, which pair a priority with its own.

    None if nobody `counted`; `left_out` were due too little to judge.
    """

    index: float | None
    counted: int
    left_out: int
    classes: tuple[tuple[int, float], ...]


class WorstWait(NamedTuple):
    """The wait that came nearest to its bound, or went furthest beyond: whose, how long, and how long it might last."""

    guest: str
    lasted: int
    allowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long guests waited for a turn, as nearest-rank percentiles; all 0 if nobody did.

    `beyond` counts the waits that lasted longer than their bound, those still `open` at the end among them.
    """

    count: int
    p50: int
    p90: int
    p99: int
    longest: int
    worst: WorstWait | None
    beyond: int
    open: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the shared pool was used for: `capacity` in core-nanoseconds, the others as parts of it.

    In `idle` is what nobody could use.
    """

    capacity: int
    running: float
    handover: float
    idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerShare:
    """One owner's shared guests: how many, its weight, what they were due and got, and the longest any has waited."""

    owner: str
    guests: int
    weight: int
    due: float
    got: int
    longest: int

    @property
    def ratio(self) -> float | None:
        """What was got of what was due; None if nothing was."""
        return self.got / self.due if self.due > 0 else None


class Incident(NamedTuple):
    """Something that went wrong so many `times`, first with this guest at this moment."""

    what: str
    times: int
    guest: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of one simulation. `guests` and `owners` are those that took turns.

    `reasons`, of the `refused`, and `failures` are the most frequent first; of very many only the first to happen are
    there. `exclusive` and `quarantined` are core-nanoseconds. `shares` has every owner, who got least of its due first.
    """

    title: str
    duration: int
    guests: int
    owners: int
    refused: int
    reasons: tuple[Incident, ...]
    failures: tuple[Incident, ...]
    handovers: int
    exclusive: int
    quarantined: int
    among_guests: Fairness
    among_owners: Fairness
    use: Use
    waits: Waits
    shares: tuple[OwnerShare, ...]


def jain(values: Sequence[float]) -> float:
    """Return (sum x)^2 / (n * sum x^2), 1 for values that are all the same, even 0."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def fairness(parts: Iterable[Part]) -> Fairness:
    """Return Jain's index of each class and the least of them."""
    judged: defaultdict[int, list[float]] = defaultdict(list)
    left_out = 0
    for part in parts:
        if part.due >= part.least > 0:
            judged[part.priority].append(part.got / part.due)
        else:
            left_out += 1
    classes = tuple((priority, jain(judged[priority])) for priority in sorted(judged, reverse=True))
    return Fairness(
        index=min((index for _, index in classes), default=None),
        counted=sum(map(len, judged.values())),
        left_out=left_out,
        classes=classes,
    )


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the least of these values, ascending, that so many percent of them do not exceed; 0 of none."""
    return ordered[max(1, -(-len(ordered) * percent // 100)) - 1] if ordered else 0


def describe(report: Report) -> dict[str, object]:
    """Return a report as plain JSON values, times in seconds and amounts in core-seconds."""
    waits, use, worst = report.waits, report.use, report.waits.worst
    return {
        "title": report.title,
        "seconds": _seconds(report.duration),
        "guests": report.guests,
        "owners": report.owners,
        "refused": report.refused,
        "reasons": [_incident(incident) for incident in report.reasons],
        "failures": [_incident(incident) for incident in report.failures],
        "handovers": report.handovers,
        "jain": {"guests": _fairness(report.among_guests), "owners": _fairness(report.among_owners)},
        "pool": {
            "core_seconds": _seconds(use.capacity),
            "running": use.running,
            "handover": use.handover,
            "idle": use.idle,
        },
        "exclusive_core_seconds": _seconds(report.exclusive),
        "quarantined_core_seconds": _seconds(report.quarantined),
        "waits": {
            "count": waits.count,
            "p50_seconds": _seconds(waits.p50),
            "p90_seconds": _seconds(waits.p90),
            "p99_seconds": _seconds(waits.p99),
            "longest_seconds": _seconds(waits.longest),
            "open_at_end": waits.open,
            "beyond_bound": waits.beyond,
            "worst": worst and _worst(worst),
        },
        "shares": [_share(share) for share in report.shares],
    }


def _incident(incident: Incident) -> dict[str, Any]:
    first = {"guest": incident.guest, "seconds": _seconds(incident.at)}
    return {"what": incident.what, "times": incident.times, "first": first}


def _fairness(of: Fairness) -> dict[str, Any]:
    classes = [{"priority": priority, "index": index} for priority, index in of.classes]
    return {"index": of.index, "counted": of.counted, "left_out": of.left_out, "classes": classes}


def _worst(worst: WorstWait) -> dict[str, Any]:
    return {"guest": worst.guest, "seconds": _seconds(worst.lasted), "bound_seconds": _seconds(worst.allowed)}


def _share(share: OwnerShare) -> dict[str, Any]:
    return {
        "owner": share.owner,
        "guests": share.guests,
        "weight": share.weight,
        "due_core_seconds": _seconds(share.due),
        "got_core_seconds": _seconds(share.got),
        "ratio": share.ratio,
        "longest_wait_seconds": _seconds(share.longest),
    }


def _seconds(nanoseconds: float) -> float:
    return nanoseconds / _SECOND

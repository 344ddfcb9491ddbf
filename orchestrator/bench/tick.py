"""`bench tick`: what one scheduling decision costs, ours and that of the obvious scheduler, which sorts all that wait.

A decision is one hand-over: the turn that ends on a core and the one that begins there. Guests are one core wide, of
one class, of many owners with different weights; so many wait that every slice that ends is a hand-over. Slices end
all at one moment, so that a tick takes as many decisions as there are cores, or each at a moment of its own, so that
a tick takes one. Time is CPU time of this process, garbage collection included, so that other load hardly counts; a
reading of that clock takes part of a microsecond, which is counted too.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from orchestrator.bench.place import cpu_name
from orchestrator.core.members import Member
from orchestrator.core.order import Order
from orchestrator.core.policy import RotationPolicy
from orchestrator.core.rotation import Rotation
from orchestrator.core.seats import Seats
from orchestrator.core.sharing import Guest, Rules
from orchestrator.core.units import Units

SIZES = ((1_000, 100), (10_000, 1_000))
"""The numbers of waiting guests and of cores that are measured unless others are asked for."""

OWNERS = 50
"""How many people the guests belong to."""

_WEIGHTS = (50, 100, 300)
_RULES = RotationPolicy().rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a decision costs, in microseconds: the mean over all of them, the other figures over ticks.

    A tick of many decisions counts with its time divided by their number.
    """

    decisions: int
    mean: float
    median: float
    p99: float
    worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The cost of a decision while `waiting` guests wait for `cores` cores.

    `together` is ours where all slices end at one moment, `apart` where each ends at its own; `sorting` is the
    obvious scheduler's with slices apart, and `ratio` how many times the mean of ours that is.
    """

    waiting: int
    cores: int
    together: Cost
    apart: Cost
    sorting: Cost
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What was measured, and where: the CPU's name and Python's version."""

    cpu: str
    python: str
    ticks: tuple[Tick, ...]


def measure(sizes: Iterable[tuple[int, int]] = SIZES, seconds: float = 2.0) -> TickReport:
    """Measure each size, waiting guests by cores, three times for `seconds` of CPU time and one tick at least."""
    ticks = tuple(_tick(waiting, cores, seconds) for waiting, cores in sizes)
    return TickReport(cpu=cpu_name(), python=platform.python_version(), ticks=ticks)


def describe(report: TickReport) -> dict[str, object]:
    """Return a report as plain JSON values; times are in microseconds."""
    machine = {"cpu": report.cpu, "python": report.python}
    return {"machine": machine, "ticks": [asdict(tick) for tick in report.ticks]}


class SortingOrder(Order):
    """The same order, by the same keys, found as one would at first: sort all that wait, and take the first fit."""

    def first(self, limit: int, now: int) -> Member | None:
        """Return the first in order of those that wait for at most `limit` units. Growth: n log n in the guests."""
        return next((member for member in self.queue(now) if member.need <= limit), None)


class SortingRotation(Rotation):
    """The rival: a rotation that sorts all waiting guests at each decision."""

    def __init__(self, rules: Rules, groups: Iterable[Iterable[int]]) -> None:
        super().__init__(rules, groups)
        units = Units(groups)
        self._order = SortingOrder(rules, units.size)
        self._seats = Seats(rules, units, self._order, lambda _: False)


def crowd(kind: type[Rotation], waiting: int, cores: int, *, apart: bool) -> Rotation:
    """Return a rotation in which each core is taken, from one moment on or each from its own, and so many wait."""
    groups = [(core,) for core in range(2, 2 + cores)]
    rotation = kind(_RULES, groups)
    for owner in range(OWNERS):
        rotation.weigh_owner(f"o{owner}", _WEIGHTS[owner % len(_WEIGHTS)])
    for number in range(waiting):
        rotation.add(_guest(number), 0)
    step = (_RULES.slice + _RULES.handover) // cores if apart else 0
    for number, group in enumerate(groups):
        rotation.add(_guest(waiting + number), number * step, running_on=group)
    return rotation


def _guest(number: int) -> Guest:
    return Guest(id=f"g{number}", owner=f"o{number % OWNERS}", width=1)


def _tick(waiting: int, cores: int, seconds: float) -> Tick:
    together = _cost(crowd(Rotation, waiting, cores, apart=False), seconds)
    apart = _cost(crowd(Rotation, waiting, cores, apart=True), seconds)
    sorting = _cost(crowd(SortingRotation, waiting, cores, apart=True), seconds)
    ratio = sorting.mean / apart.mean
    return Tick(waiting=waiting, cores=cores, together=together, apart=apart, sorting=sorting, ratio=ratio)


def _cost(rotation: Rotation, seconds: float) -> Cost:
    """Tick whenever the rotation wants it; what it takes to tell when that is counts too."""
    spent: list[int] = []
    decisions: list[int] = []
    event = rotation.next_event()
    end = time.process_time() + seconds
    while event is not None and (not spent or time.process_time() < end):
        start = time.process_time_ns()
        runs = rotation.tick(event).runs
        event = rotation.next_event()
        spent.append(time.process_time_ns() - start)
        decisions.append(len(runs))
    each = sorted(nanoseconds / number / 1000 for nanoseconds, number in zip(spent, decisions, strict=True))
    return Cost(
        decisions=sum(decisions),
        mean=sum(spent) / sum(decisions) / 1000,
        median=median(each),
        p99=_percentile(each, 99),
        worst=each[-1],
    )


def _percentile(ascending: Sequence[float], percent: int) -> float:
    """Return the least of these values that so many percent of them do not exceed."""
    return ascending[-(-len(ascending) * percent // 100) - 1]

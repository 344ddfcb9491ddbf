"""A report on some time of a host: who held which core when, who waited how long, and what each got of his due. Pure.

A chronicle goes in, values come out; `page` draws them. Times are wall-clock nanoseconds, core time is
core-nanoseconds. Growth: n log n in what is in the chronicle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.core.chronicle import Chronicle, Incident, Turn, Waited
from orchestrator.core.overview import jain

MOST_PARTS, LEAST_PARTS = 24, 4
"""In how many parts the time is divided for what is shown over time."""

_WAITS = 3
"""A part is as long as so many of the longest wait, if it can be: within less, nobody can have his share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreLine:
    """How one core was used: `held` is the part of the time that somebody had it, in `turns` turns, by `guests`."""

    core: int
    held: float
    turns: int
    guests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestLine:
    """What came of one guest: core time that it `ran`, and `due` if that is known; its waits, the longest of them.

    `nearest` is the greatest part of its bound that a wait has taken; above 1 the bound was broken.
    """

    name: str
    owner: str
    architecture: str
    shared: bool
    turns: int
    ran: int
    due: int | None
    waits: int
    mean: int
    longest: int
    longest_at: int
    nearest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the time: its waits, and how near to its bound the worst of them came.

    `fairness` is Jain's index of the parts that shared guests got of what they were due; None where nobody was due
    anything, or it is not known.
    """

    begin: int
    end: int
    waits: int
    mean: int
    longest: int
    nearest: float
    fairness: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLine:
    """What of a rule a party had used when it was last looked, the most that was seen, and its course over time."""

    party: str
    rule: str
    unit: str
    used: int
    limit: int
    most: int
    course: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it, from `begin` to `end`. `turns` are those within, cut at both ends, in order of their beginning.

    `fairness` is Jain's index over all of the time. `unread` and `lost` tell how much is missing.
    """

    begin: int
    end: int
    cores: tuple[CoreLine, ...]
    turns: tuple[Turn, ...]
    guests: tuple[GuestLine, ...]
    parts: tuple[Part, ...]
    fairness: float | None
    quotas: tuple[QuotaLine, ...]
    incidents: tuple[Incident, ...]
    unread: int
    lost: int

    @property
    def longest(self) -> GuestLine | None:
        """Who has waited longest for a turn, if anybody has."""
        return max((line for line in self.guests if line.waits), key=lambda line: line.longest, default=None)


def make_report(chronicle: Chronicle, begin: int, end: int) -> Report:
    """Return the report on what was between two moments. Call `Chronicle.finish` first."""
    turns = tuple(sorted(_within(chronicle.turns, begin, end), key=lambda turn: (turn.begin, turn.cores, turn.guest)))
    waits = [wait for wait in chronicle.waits if begin <= wait.at <= end]
    dues = _Dues(chronicle, begin, end)
    longest = max((wait.length for wait in waits), default=1)
    count = max(LEAST_PARTS, min(MOST_PARTS, (end - begin) // max(1, _WAITS * longest)))
    moments = [begin + (end - begin) * number // count for number in range(count + 1)]
    return Report(
        begin=begin,
        end=end,
        cores=tuple(_core_lines(turns, end - begin)),
        turns=turns,
        guests=tuple(_guest_lines(chronicle, turns, waits, dues)),
        parts=tuple(_part(turns, waits, dues, *span) for span in pairwise(moments)),
        fairness=_fairness(turns, dues, begin, end),
        quotas=tuple(_quota_lines(chronicle, begin, end)),
        incidents=tuple(each for each in chronicle.incidents if begin <= each.at <= end),
        unread=chronicle.unread,
        lost=chronicle.lost,
    )


class _Dues:
    """What guests were due: each sample holds until the next one, and the first one from the beginning on."""

    def __init__(self, chronicle: Chronicle, begin: int, end: int) -> None:
        samples = chronicle.samples
        starts = [begin if number == 0 else max(begin, sample.at) for number, sample in enumerate(samples)]
        ends = [*(max(begin, min(end, sample.at)) for sample in samples[1:]), end]
        self._spans = [
            (start, stop, sample.wanted)
            for start, stop, sample in zip(starts, ends, samples, strict=False)
            if start < stop
        ]

    def between(self, begin: int, end: int) -> dict[str, float]:
        """Return what each guest was due, in core-nanoseconds; empty if that is not known."""
        due: dict[str, float] = {}
        for start, stop, wanted in self._spans:
            length = min(stop, end) - max(start, begin)
            if length > 0:
                for guest, cores in wanted.items():
                    due[guest] = due.get(guest, 0.0) + cores * length
        return due


def _within(turns: Iterable[Turn], begin: int, end: int) -> Iterator[Turn]:
    for turn in turns:
        if turn.end > begin and turn.begin < end and turn.end > turn.begin:
            yield turn._replace(begin=max(begin, turn.begin), end=min(end, turn.end))


def _core_lines(turns: Sequence[Turn], length: int) -> Iterator[CoreLine]:
    held: dict[int, int] = {}
    count: dict[int, int] = {}
    guests: dict[int, set[str]] = {}
    for turn in turns:
        for core in turn.cores:
            held[core] = held.get(core, 0) + turn.end - turn.begin
            count[core] = count.get(core, 0) + 1
            guests.setdefault(core, set()).add(turn.guest)
    for core in sorted(held):
        part = min(1.0, held[core] / length) if length else 0.0
        yield CoreLine(core=core, held=part, turns=count[core], guests=len(guests[core]))


def _guest_lines(
    chronicle: Chronicle, turns: Sequence[Turn], waits: Sequence[Waited], dues: _Dues
) -> Iterator[GuestLine]:
    """Yield guests, who waited longest first."""
    own: dict[str, list[Turn]] = {}
    for turn in turns:
        own.setdefault(turn.guest, []).append(turn)
    waited: dict[str, list[Waited]] = {}
    for wait in waits:
        waited.setdefault(wait.guest, []).append(wait)
    span = (turns[0].begin, max(turn.end for turn in turns)) if turns else (0, 0)
    due = dues.between(*span)
    lines = [
        _guest_line(chronicle, name, own.get(name, []), waited.get(name, []), due.get(name))
        for name in sorted({*own, *waited})
    ]
    yield from sorted(lines, key=lambda line: (-line.longest, line.name))


def _guest_line(
    chronicle: Chronicle, name: str, turns: Sequence[Turn], waits: Sequence[Waited], due: float | None
) -> GuestLine:
    worst = max(waits, key=lambda wait: wait.length, default=Waited(name, 0, 0, 0))
    return GuestLine(
        name=name,
        owner=chronicle.owners.get(name, ""),
        architecture=chronicle.architectures.get(name, ""),
        shared=any(turn.shared for turn in turns) or bool(waits),
        turns=len(turns),
        ran=sum((turn.end - turn.begin) * len(turn.cores) for turn in turns),
        due=None if due is None else int(due),
        waits=len(waits),
        mean=sum(wait.length for wait in waits) // len(waits) if waits else 0,
        longest=worst.length,
        longest_at=worst.at,
        nearest=max((wait.length / wait.bound for wait in waits), default=0.0),
    )


def _part(turns: Sequence[Turn], waits: Sequence[Waited], dues: _Dues, begin: int, end: int) -> Part:
    here = [wait for wait in waits if begin <= wait.at < end]
    return Part(
        begin=begin,
        end=end,
        waits=len(here),
        mean=sum(wait.length for wait in here) // len(here) if here else 0,
        longest=max((wait.length for wait in here), default=0),
        nearest=max((wait.length / wait.bound for wait in here), default=0.0),
        fairness=_fairness(turns, dues, begin, end),
    )


def _fairness(turns: Sequence[Turn], dues: _Dues, begin: int, end: int) -> float | None:
    """Return Jain's index among the shared guests that were due something between two moments."""
    exclusive = {turn.guest for turn in turns if not turn.shared}
    due = {name: cores for name, cores in dues.between(begin, end).items() if cores > 0 and name not in exclusive}
    got = dict.fromkeys(due, 0)
    for turn in turns:
        if turn.guest in got:
            got[turn.guest] += max(0, min(turn.end, end) - max(turn.begin, begin)) * len(turn.cores)
    return jain({name: got[name] / due[name] for name in due})


def _quota_lines(chronicle: Chronicle, begin: int, end: int) -> Iterator[QuotaLine]:
    seen: dict[tuple[str, str, str], list[tuple[int, int, int]]] = {}
    for sample in chronicle.samples:
        if begin <= sample.at <= end:
            for party, rule, used, limit, unit in sample.quotas:
                seen.setdefault((party, rule, unit), []).append((sample.at, used, limit))
    for (party, rule, unit), found in sorted(seen.items()):
        _, used, limit = found[-1]
        course = tuple((at, had) for at, had, _ in found[:: max(1, len(found) // 100)])
        most = max(had for _, had, _ in found)
        yield QuotaLine(party=party, rule=rule, unit=unit, used=used, limit=limit, most=most, course=course)

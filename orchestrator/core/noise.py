"""What disturbs a core: the kernel's counters at several moments, and what they say was done on it in between.

Times are nanoseconds. Who ran where is told by the core on which a thread was last seen: what moves about, or lives for
less than the time between two looks, is found on one core of several, or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

Counts = Mapping[int, Mapping[str, int]]
"""By core and name."""


class Side(StrEnum):
    """Whose a thread is: a guest's or the scheduler's, the kernel's, or of any other program."""

    OURS = "ours"
    KERNEL = "kernel"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Running:
    """A thread at one moment: the core it was on last, and for how long it has run in all."""

    name: str
    side: Side
    core: int
    ran: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The counters at one moment. `threads` are by thread id and start time; `steal` is the hypervisor's time."""

    threads: Mapping[str, Running]
    interrupts: Counts
    softirqs: Counts
    steal: Mapping[int, int]


@dataclass(slots=True)
class Noise:
    """What happened on a core: run times by program, and counts; `may` are foreign programs that are allowed on it."""

    core: int
    ran: dict[Side, Counter[str]] = field(default_factory=lambda: {side: Counter() for side in Side})
    interrupts: Counter[str] = field(default_factory=Counter)
    softirqs: Counter[str] = field(default_factory=Counter)
    steal: int = 0
    may: frozenset[str] = frozenset()

    def total(self, side: Side) -> int:
        """Return how long threads of this side ran."""
        return self.ran[side].total()


def noise(
    looks: Sequence[Look], allowed: Iterable[tuple[str, Side, frozenset[int]]], cores: Iterable[int]
) -> tuple[Noise, ...]:
    """Return what happened on each of these cores between the first look and the last.

    `allowed` are threads as they are: name, side, and the cores on which each may run. O(looks x threads).
    """
    found = {core: Noise(core) for core in sorted(cores)}
    for earlier, later in pairwise(looks):
        for key, thread in later.threads.items():
            before = earlier.threads.get(key)
            ran = thread.ran - (before.ran if before else 0)
            if ran > 0 and thread.core in found:
                found[thread.core].ran[thread.side][thread.name] += ran
    threads = [(name, where) for name, side, where in allowed if side is Side.FOREIGN]
    for core, each in found.items():
        each.interrupts = _grown(looks[0].interrupts, looks[-1].interrupts, core)
        each.softirqs = _grown(looks[0].softirqs, looks[-1].softirqs, core)
        each.steal = looks[-1].steal.get(core, 0) - looks[0].steal.get(core, 0)
        each.may = frozenset(name for name, where in threads if core in where)
    return tuple(found.values())


def describe(each: Noise) -> dict[str, object]:
    """Return one core's noise as JSON's types; the largest first, times in milliseconds."""
    ran = {side.value: {name: _ms(time) for name, time in each.ran[side].most_common()} for side in Side}
    return {
        "core": each.core,
        "ran_ms": ran,
        "may_run": sorted(each.may),
        "interrupts": dict(each.interrupts.most_common()),
        "softirqs": dict(each.softirqs.most_common()),
        "steal_ms": _ms(each.steal),
    }


def parse_interrupts(text: str) -> Counts:
    """Return the counts of /proc/interrupts or /proc/softirqs: a line of CPUs, then a line for each kind."""
    head, *lines = text.splitlines() or [""]
    cores = [int(word.removeprefix("CPU")) for word in head.split()]
    counts: dict[int, dict[str, int]] = {core: {} for core in cores}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split(maxsplit=len(cores))
        if len(words) >= len(cores):  # the counts of ERR and MIS are for no core
            label = " ".join([name.strip(), *words[len(cores) :]])
            for core, count in zip(cores, words, strict=False):
                counts[core][" ".join(label.split())] = int(count)
    return counts


def parse_steal(text: str, tick: int) -> dict[int, int]:
    """Return the stolen time of each core, of /proc/stat, whose unit is a `tick`."""
    return {core: ticks * tick for core, ticks in _steal(text)}


def _steal(text: str) -> Iterator[tuple[int, int]]:
    for line in text.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu" and len(fields) > 7:
            yield int(name.removeprefix("cpu")), int(fields[7])


def _grown(before: Counts, after: Counts, core: int) -> Counter[str]:
    old = before.get(core, {})
    grown = {name: count - old.get(name, 0) for name, count in after.get(core, {}).items()}
    return Counter({name: count for name, count in grown.items() if count > 0})


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1_000_000, 1)

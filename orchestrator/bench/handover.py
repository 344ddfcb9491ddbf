"""`bench handover`: how long one core takes from one guest to the next, and how much of the pool's time guests get.

A hand-over is timed from the request to stop one guest until the other has confirmed that it runs. The same two
guests are handed over in three ways in one run, there and back in turn, so that other load hits all alike:

engine
    ours: from the engine's request to stop until it has taken in that the next guest runs, the change of lock included.
    Its clock is moved to the end of the slice by hand, so that it touches nothing while the others are measured.
engine, from the slice's end
    the same hand-overs, with what comes before: being woken, and the decision.
bare
    two raw Unix sockets, see `rivals`: the least that anyone could do over QMP.
libvirt
    virDomainSuspend and virDomainResume.

Between two hand-overs the guest that has the core runs for `Extent.run` seconds, as it would in a slice.
The useful time of the pool is what guests ran, from confirmation to confirmation, on a clock that goes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeAlias

from orchestrator.core.durations import Duration

ENGINE, WITH_DECISION, BARE, LIBVIRT = "engine", "engine, from the slice's end", "bare", "libvirt"
"""What is timed."""

HandOver: TypeAlias = Callable[[str, str], Awaitable[Mapping[str, float]]]
"""Stops the first guest, lets the second run, and returns the seconds that this took, by what was timed."""

WARM_UP = 3
"""Rounds before those that count: first runs are proved, buffers are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured: `rounds` there and back each way, `run` seconds before each hand-over.

    Then `guests` take turns for `seconds`, once for each of `slices`.
    """

    rounds: int = 200
    run: float = 0.01
    guests: int = 20
    seconds: float = 25.0
    slices: tuple[Duration, ...] = (Duration.parse("100 ms"), Duration.parse("1 s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Stop to running, over so many hand-overs, in milliseconds."""

    handovers: int
    median: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What became of the cores' time at one length of slice, while so many guests took turns on them.

    `handovers` are the turns that began within `seconds`. `useful` is the part of the cores' time between the
    confirmation that a guest runs and the one that it stands still; `cpu` is the part that guests' threads used, by
    the kernel's own figures, which is less where other load has the cores too.
    """

    slice_ms: float
    guests: int
    cores: tuple[int, ...]
    seconds: float
    handovers: int
    useful: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where it was measured: the CPU's name, versions, what guests were run with, and whether in a real-time class."""

    cpu: str
    python: str
    qemu: str
    libvirt: str
    accelerator: str
    realtime: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverReport:
    """What was measured. `ratios` are the medians' to that of the bare loop.

    `cores` are those that were handed over. With `borrowed_service_core` there was no pool, and core 1 stood in for it.
    """

    machine: Machine
    borrowed_service_core: bool
    cores: tuple[int, ...]
    ways: Mapping[str, Times]
    ratios: Mapping[str, float]
    uses: tuple[Use, ...]


def describe(report: HandoverReport) -> dict[str, object]:
    """Return a report as plain JSON values; times are in milliseconds but where their names say otherwise."""
    return {
        "machine": asdict(report.machine),
        "borrowed_service_core": report.borrowed_service_core,
        "cores": list(report.cores),
        "ways": {name: asdict(times) for name, times in report.ways.items()},
        "ratios": dict(report.ratios),
        "useful": [asdict(use) | {"cores": list(use.cores)} for use in report.uses],
    }


async def alternate(
    ways: Sequence[HandOver], guests: tuple[str, str], extent: Extent, on_round: Callable[[int], None]
) -> dict[str, Times]:
    """Hand the core from the first guest, which runs, to the second and back, each way in each round.

    Which way is the first changes from round to round. `on_round` is told how many are done.
    """
    there, back = guests, guests[::-1]
    spent: dict[str, list[float]] = {}
    for number in range(-WARM_UP, extent.rounds):
        first = number % len(ways)
        for way in (*ways[first:], *ways[:first]):
            for old, new in (there, back):
                await asyncio.sleep(extent.run)
                for name, seconds in (await way(old, new)).items():
                    if number >= 0:
                        spent.setdefault(name, []).append(seconds * 1000)
        on_round(max(number + 1, 0))
    return {name: _times(values) for name, values in spent.items()}


def ratios(ways: Mapping[str, Times], base: str) -> dict[str, float]:
    """Return how many times the median of `base` each other median is."""
    return {name: times.median / ways[base].median for name, times in ways.items() if name != base}


def _times(milliseconds: Iterable[float]) -> Times:
    ascending = sorted(milliseconds)
    return Times(
        handovers=len(ascending),
        median=median(ascending),
        p90=_percentile(ascending, 90),
        p99=_percentile(ascending, 99),
    )


def _percentile(ascending: Sequence[float], percent: int) -> float:
    """Return the least of these values that so many percent of them do not exceed."""
    return ascending[-(-len(ascending) * percent // 100) - 1]

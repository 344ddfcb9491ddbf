"""What `orchestrator bench start` reports: how long each way takes to the first heartbeat, and what clones cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

LIBVIRT, BARE, CLONE, STAGED = "cold through libvirt", "cold, bare QEMU", "clone", "staged clone"
"""The ways to start a guest."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How often each way is measured, and with how many guests memory is."""

    rounds: int = 5
    linux_rounds: int = 3
    guests: int = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """One guest's medians in milliseconds, by way; `turn` is a staged clone's until its turn was confirmed.

    The guest runs before that is confirmed, so it may have beaten by then.
    """

    name: str
    rounds: int
    ways: Mapping[str, float]
    turn: float

    @property
    def ratio(self) -> float:
        """Return how much of the cold start through libvirt an unstaged clone takes."""
        return self.ways[CLONE] / self.ways[LIBVIRT]


@dataclass(frozen=True, slots=True)
class Memory:
    """Private memory, in bytes, of so many guests together: cold ones, and clones of one template."""

    name: str
    guests: int
    cold: int
    clones: int


@dataclass(frozen=True, slots=True)
class StartReport:
    """All of it, and on what it was measured."""

    machine: Mapping[str, object]
    borrowed_service_core: bool
    kinds: tuple[Kind, ...]
    memory: Memory


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each way, seconds in and milliseconds out."""
    return {way: statistics.median(each) * 1000 for way, each in times.items()}


def describe(report: StartReport) -> dict[str, object]:
    """Return a report as JSON's types."""
    kinds = [{**asdict(kind), "ratio": kind.ratio} for kind in report.kinds]
    memory = {**asdict(report.memory), "ratio": report.memory.clones / report.memory.cold}
    return {
        "unit": "ms",
        "machine": dict(report.machine),
        "borrowed_service_core": report.borrowed_service_core,
        "kinds": kinds,
        "memory": memory,
    }

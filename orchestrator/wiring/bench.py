"""The benchmarks, as the command line asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.bench.handover import Extent, HandoverReport
    from orchestrator.bench.place import PlaceReport
    from orchestrator.bench.start import StartReport
    from orchestrator.bench.tick import TickReport

__all__ = [
    "HandoverReport",
    "StartReport",
    "describe_handover",
    "describe_place",
    "describe_start",
    "describe_tick",
    "handover",
    "place",
    "start",
    "tick",
]


def place() -> PlaceReport:
    """Measure placements; see `bench.place.measure`."""
    from orchestrator.bench.place import measure

    return measure()


def describe_place(report: PlaceReport) -> dict[str, object]:
    """Return a report as JSON's types."""
    from orchestrator.bench.place import describe

    return describe(report)


def tick() -> TickReport:
    """Measure scheduling decisions; see `bench.tick.measure`."""
    from orchestrator.bench.tick import measure

    return measure()


def describe_tick(report: TickReport) -> dict[str, object]:
    """Return a report as JSON's types."""
    from orchestrator.bench.tick import describe

    return describe(report)


async def handover(
    policy: Path | None, *, borrow: bool, tell: Callable[[str, float], None], extent: Extent | None = None
) -> HandoverReport:
    """Measure hand-overs of real guests; see `wiring.handover.measure`."""
    from orchestrator.bench.handover import Extent
    from orchestrator.wiring.handover import measure
    from orchestrator.wiring.site import load_policy

    return await measure(load_policy(policy), borrow=borrow, extent=extent or Extent(), tell=tell)


def describe_handover(report: HandoverReport) -> dict[str, object]:
    """Return a report as JSON's types."""
    from orchestrator.bench.handover import describe

    return describe(report)


async def start(policy: Path | None, *, borrow: bool, tell: Callable[[str, float], None]) -> StartReport:
    """Measure starts; see `wiring.starting.measure`."""
    from orchestrator.bench.start import Extent
    from orchestrator.wiring.site import load_policy
    from orchestrator.wiring.starting import measure

    return await measure(load_policy(policy), borrow=borrow, extent=Extent(), tell=tell)


def describe_start(report: StartReport) -> dict[str, object]:
    """Return a report as JSON's types."""
    from orchestrator.bench.start import describe

    return describe(report)

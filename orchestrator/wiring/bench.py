"""The benchmarks, as the command line asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.bench.place import PlaceReport
    from orchestrator.bench.tick import TickReport


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

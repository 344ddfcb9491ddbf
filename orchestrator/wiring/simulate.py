"""Simulations: a scenario's files in, its figures and its chart out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError
from orchestrator.simulator.report import Fairness, Incident, OwnerShare, Report, describe
from orchestrator.wiring.site import load_policy, read_file

if TYPE_CHECKING:
    from orchestrator.simulator.gantt import Chart
    from orchestrator.simulator.scenario import Scenario
    from orchestrator.simulator.scribe import Outcome

__all__ = ["Fairness", "Incident", "OwnerShare", "Report", "check_svg", "describe", "load_scenario", "run", "write_svg"]


def load_scenario(path: Path, policy: Path | None) -> Scenario:
    """Return the scenario in this file, under the policy in the other one if there is one, else under its own."""
    from orchestrator.simulator.scenario_file import parse_scenario

    scenario = parse_scenario(read_file(path), str(path))
    if policy is None:
        return scenario
    scenario = replace(scenario, policy=load_policy(policy))
    if not scenario.host.topology(scenario.policy).pool:
        raise UsageError(f"{policy}: reserves all cores that the host of {path} has for guests; reserve fewer")
    return scenario


def run(scenario: Scenario, progress: Callable[[int], None] | None) -> Outcome:
    """Let a scenario happen; `progress` is told the simulated time now and then, in nanoseconds.

    Meanwhile no garbage is collected: turns leave no cycles behind, and looking for some among ten thousand guests
    would take a tenth of the time.
    """
    from orchestrator.simulator.world import simulate

    gc.disable()
    try:
        return simulate(scenario, progress)
    finally:
        gc.enable()


def check_svg(path: Path) -> None:
    """Raise UsageError if a picture can certainly not be written there, before time is spent on it."""
    from orchestrator.wiring.report import check_file

    check_file(path, "the chart")


def write_svg(chart: Chart, path: Path) -> None:
    """Write a chart as SVG, wholly or not at all; a file that is there is replaced."""
    from orchestrator.simulator.drawing import draw
    from orchestrator.wiring.report import write_file

    write_file(draw(chart), path)

"""`orchestrator simulate` from file to table: the real loop, on scenarios that take no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.simulate import simulate
from orchestrator.errors import FailedError, OrchestratorError, UsageError

SHORT = """\
title = "Three share two"
duration = "10 s"
[host]
cpus = 4
[[owner]]
name = "ann"
weight = 200
[[guests]]
name = "wide"
owner = "ann"
vcpus = 2
[[guests]]
name = "narrow"
owner = "ben"
count = 2
[[guests]]
name = "too-wide"
owner = "eva"
vcpus = 9
"""
SLOW = SHORT.replace("[host]", '[costs]\nresume = "1500 ms"\n[host]')


class Told(NamedTuple):
    out: str
    error: OrchestratorError | None

    @property
    def lines(self) -> list[list[str]]:
        """The words of each line."""
        return [line.split() for line in self.out.splitlines()]


def run(*arguments: object) -> Told:
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    error = result.exception
    assert error is None or isinstance(error, OrchestratorError), result.output
    return Told(result.stdout, error)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SHORT)
    return path


def test_the_figures_are_told_in_tables(scenario: Path) -> None:
    told = run(scenario)
    assert told.error is None
    assert told.out.startswith("THREE SHARE TWO")
    assert ["shared", "guests", "3", "of", "2", "owners"] in told.lines
    assert ["beyond", "the", "bound", "0"] in told.lines
    owners = {line[0]: line[1:3] for line in told.lines if line[:1] in (["ann"], ["ben"])}
    assert owners == {"ann": ["1", "200"], "ben": ["2", "100"]}
    assert any(
        "too-wide" in line and "shared pool cores: wanted 9, available 2" in " ".join(line) for line in told.lines
    )


def test_the_figures_are_told_in_json_and_are_the_same_every_time(scenario: Path) -> None:
    told = json.loads(run(scenario, "--json").out)
    assert (told["guests"], told["refused"], told["waits"]["beyond_bound"]) == (3, 1, 0)
    assert told["jain"]["owners"]["index"] > 0.99
    ann, ben = (share["got_core_seconds"] for share in sorted(told["shares"], key=lambda share: str(share["owner"])))
    assert ann / ben == pytest.approx(2, rel=0.05)
    assert json.loads(run(scenario, "--json").out) == told


def test_a_wait_beyond_its_bound_is_told_after_the_figures(scenario: Path) -> None:
    scenario.write_text(SLOW)
    told = run(scenario)
    assert isinstance(told.error, FailedError)
    assert f"{scenario}: " in str(told.error)
    assert "waits went beyond their bound: the worst is " in str(told.error)
    assert told.error.exit_code == 1
    assert told.out.startswith("THREE SHARE TWO")


def test_another_policy_takes_the_place_of_the_scenarios(scenario: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[rotation]\nslice = "1 s"\n')
    before, after = (json.loads(run(scenario, "--json", *more).out) for more in ((), ("--policy", policy)))
    assert before["handovers"] > 5 * after["handovers"]
    policy.write_text('[cores]\nreserved = "2-3"\n')
    assert str(run(scenario, "--policy", policy).error) == (
        f"{policy}: reserves all cores that the host of {scenario} has for guests; reserve fewer"
    )


def test_the_chart_is_written_whole_and_replaces_what_was_there(scenario: Path, tmp_path: Path) -> None:
    chart = tmp_path / "chart.svg"
    chart.write_text("old")
    assert run(scenario, "--svg", chart).error is None
    assert chart.read_text().startswith("<?xml")
    assert "Three share two" in chart.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chart.svg", "short.toml"]


@pytest.mark.parametrize(
    ("svg", "why"),
    [("", "is a directory; name a file to write the chart to"), ("no/chart.svg", "cannot be written: there is no dir")],
)
def test_where_no_chart_can_be_written_nothing_is_simulated(scenario: Path, tmp_path: Path, svg: str, why: str) -> None:
    told = run(scenario, "--svg", tmp_path / svg)
    assert isinstance(told.error, UsageError)
    assert str(told.error).startswith(f"{tmp_path / svg}: {why}")
    assert told.out == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [("gone.toml", "cannot be read: No such file or directory"), ("", "cannot be read: Is a directory")],
)
def test_a_scenario_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, path: str, why: str) -> None:
    told = run(tmp_path / path)
    assert isinstance(told.error, UsageError)
    assert told.error.lines() == (f"{tmp_path / path}: {why}",)

"""`orchestrator policy show` and `calendar`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from orchestrator.cli.main import app

POLICIES = Path(__file__).parents[2] / "policies"


def ran(*words: str) -> str:
    outcome = CliRunner().invoke(app, ["policy", *words])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_every_value_is_shown_with_where_it_was_written(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'extends = "{POLICIES / "lab.toml"}"\n[group.nobodys-group]\nguests = 3\n')
    lines = [line.split() for line in ran("show", str(mine)).splitlines()]
    assert ["group.nobodys-group.guests", "3", f"{mine}:3"] in lines
    assert any(line[0] == "quotas.warn_at" and line[-1].startswith(str(POLICIES / "default.toml:")) for line in lines)
    assert any(line[0] == "rotation.slice" and line[-1].startswith(str(POLICIES / "lab.toml:")) for line in lines)
    shown = json.loads(ran("show", str(mine), "--json"))
    assert shown["files"] == [str(POLICIES / "default.toml"), str(POLICIES / "lab.toml"), str(mine)]
    values = {value["key"]: value for value in shown["values"]}
    assert values["group.nobodys-group.members"] == {
        "key": "group.nobodys-group.members",
        "value": [],
        "source": "the host's group",
    }


def test_without_a_file_everything_is_built_in() -> None:
    assert {line.split()[-1] for line in ran("show").splitlines()[1:]} == {"built-in"}


def test_the_calendar_shows_days_with_bars_and_what_is_set() -> None:
    lines = ran("calendar", str(POLICIES / "nightly.toml"), "--from", "2026-11-27").splitlines()
    assert lines[0] == f"Fri 27 Nov  {'#' * 12}{'.' * 36}  00:00-06:00  window night"
    assert lines[1] == f"{'':10}  {'.' * 40}{'#' * 8}  20:00-24:00  window night"
    assert lines[4].startswith("Sun 29 Nov  ####")
    assert lines[-1].startswith("window weekend: group.batch.priority = 2, group.batch.guests = 200, change = ")
    planned = json.loads(
        ran("calendar", str(POLICIES / "classroom.toml"), "--from", "2026-12-18", "--days", "1", "--json")
    )
    assert [(each["kind"], each["name"], each["begin"]) for each in planned] == [
        ("reservation", "demonstration", "2026-12-18T09:00"),
        ("window", "examination", "2026-12-18T10:00"),
    ]
    assert planned[1]["says"] == {"everyone.guests": 1, "everyone.running": 1, "change": "drain"}


def test_nothing_planned_is_said() -> None:
    assert ran("calendar", "--from", "2026-11-27").startswith("nothing is planned from Fri 27 Nov on, for 7 days")
    assert json.loads(ran("calendar", "--json")) == []

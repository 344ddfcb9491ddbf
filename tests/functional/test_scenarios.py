"""The shipped scenarios, simulated in full: fair to everybody, and every wait within its bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.functional.program import Program

SCENARIOS = sorted((Path(__file__).parents[2] / "policies" / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_shipped_scenario_is_fair_and_keeps_its_promises(path: Path, program: Program) -> None:
    done = program("simulate", str(path), "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert report["jain"]["guests"]["index"] >= 0.999
    assert report["jain"]["owners"]["index"] >= 0.999
    assert report["waits"]["beyond_bound"] == 0
    assert report["waits"]["count"] > 1000

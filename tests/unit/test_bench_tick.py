"""The decision bench: what it measures is right; how fast it is, is not a test's business."""

from __future__ import annotations

import json

import pytest

from orchestrator.bench.tick import SortingRotation, crowd, describe, measure
from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Decisions
from tests.unit.test_rotation_properties import CROWD, play


def decisions(rotation: Rotation, ticks: int) -> list[Decisions]:
    """What the rotation decides at the next moments at which it wants to."""
    made = []
    for _ in range(ticks):
        event = rotation.next_event()
        assert event is not None
        made.append(rotation.tick(event))
    return made


@pytest.mark.parametrize(("apart", "at_once"), [(False, 4), (True, 1)])
def test_as_many_turns_end_and_begin_in_a_tick_as_are_counted(apart: bool, at_once: int) -> None:
    made = decisions(crowd(Rotation, 120, 4, apart=apart), 100)
    assert {(len(each.stops), len(each.runs)) for each in made} == {(at_once, at_once)}


@pytest.mark.parametrize("apart", [False, True])
def test_the_rival_picks_the_same_guests(apart: bool) -> None:
    ours, rivals = (decisions(crowd(kind, 120, 4, apart=apart), 50) for kind in (Rotation, SortingRotation))
    assert ours == rivals


def test_the_rival_picks_the_same_guests_where_they_are_gangs() -> None:
    assert play(CROWD, SortingRotation).log == play(CROWD).log


def test_the_report_is_plain_json_and_its_figures_go_together() -> None:
    described = describe(measure(sizes=((60, 4), (120, 8)), seconds=0))
    assert json.loads(json.dumps(described)) == described
    machine, ticks = described["machine"], described["ticks"]
    assert isinstance(machine, dict)
    assert isinstance(ticks, list)
    assert machine["cpu"]
    assert [(tick["waiting"], tick["cores"]) for tick in ticks] == [(60, 4), (120, 8)]
    for tick in ticks:
        assert [tick[way]["decisions"] for way in ("together", "apart", "sorting")] == [tick["cores"], 1, 1]
        for way in ("together", "apart", "sorting"):
            cost = tick[way]
            assert 0 < cost["median"] <= cost["p99"] <= cost["worst"]
            assert cost["mean"] <= cost["worst"]
        assert tick["ratio"] == tick["sorting"]["mean"] / tick["apart"]["mean"]

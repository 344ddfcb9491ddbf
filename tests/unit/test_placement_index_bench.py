"""The placement bench: what it measures is right; how fast it is, is not a test's business."""

from __future__ import annotations

import json

import pytest

from orchestrator.bench.nova import NovaHost, nova_version
from orchestrator.bench.place import describe, fill_and_release, measure, synthetic_pool


def test_a_round_fills_the_host_and_leaves_it_idle() -> None:
    index = synthetic_pool(64)
    assert len(index) == 62
    assert [fill_and_release(index) for _ in range(2)] == [31, 31]
    assert len(index) == 62


def test_the_report_is_plain_json_and_says_whether_nova_was_there() -> None:
    described = describe(measure(sizes=(32, 64), seconds=0))
    assert json.loads(json.dumps(described)) == described
    machine, rates = described["machine"], described["rates"]
    assert isinstance(machine, dict)
    assert isinstance(rates, list)
    assert machine["cpu"]
    assert machine["nova"] == nova_version()
    assert [(rate["cores"], rate["nodes"], rate["guests"]) for rate in rates] == [(32, 1, 15), (64, 2, 31)]
    for rate in rates:
        assert rate["ours_per_second"] > 0
        assert (rate["nova_per_second"] is None) == (rate["ratio"] is None) == (machine["nova"] is None)


@pytest.mark.skipif(nova_version() is None, reason="OpenStack Nova is not installed here; it is an optional extra")
def test_nova_fills_the_same_host_with_as_many_guests() -> None:
    pool = [range(2, 32), range(32, 64)]
    for rounds in (NovaHost(pool).fill_and_release, NovaHost(pool).fill_and_release_in_place):
        assert [rounds(), rounds()] == [31, 31]

"""A policy's quotas and weights hold in a simulation as they do on a host."""

from __future__ import annotations

import pytest

from orchestrator.simulator.scenario_file import parse_scenario
from orchestrator.simulator.world import simulate

SCENARIO = """
title = "two owners"
duration = "30 s"
[host]
cpus = 6
[[guests]]
name = "a"
owner = "ann"
count = 4
vcpus = 1
[[guests]]
name = "b"
owner = "ben"
count = 4
vcpus = 1
[policy.quotas]
share_window = "1 min"
{more}
"""


def got(more: str) -> dict[str, float]:
    """Return each owner's part of what all have got."""
    report = simulate(parse_scenario(SCENARIO.replace("{more}", more).encode(), "s.toml")).report
    shares = {share.owner: share.got for share in report.shares}
    return {owner: part / sum(shares.values()) for owner, part in shares.items()} | {"all": sum(shares.values())}


def test_a_share_of_the_pool_is_kept() -> None:
    capacity = 4 * 30 * 10**9
    plain, limited = got(""), got("[policy.user.ann]\npool_share = 10")
    assert plain["all"] > 0.95 * capacity
    assert plain["ann"] == pytest.approx(0.5, abs=0.02)
    assert limited["ann"] * limited["all"] <= 0.1 * 4 * 60 * 10**9 * 1.1, "all that is due to her in a minute"


def test_weights_of_the_policy_divide() -> None:
    parts = got("[policy.user.ann]\nweight = 300")
    assert parts["ann"] / parts["ben"] == pytest.approx(3, rel=0.1)


def test_refusals_of_quotas_are_told() -> None:
    text = SCENARIO.replace("{more}", "[policy.everyone]\nguests = 3").encode()
    report = simulate(parse_scenario(text, "s.toml")).report
    assert report.refused == 2


HUNDRED = """
title = "a hundred guests of one, two of another, and two of one with twice the weight"
duration = "1 min"
[host]
cpus = 5
[[guests]]
name = "many"
owner = "many"
count = 100
[[guests]]
name = "few"
owner = "few"
count = 2
[[guests]]
name = "heavy"
owner = "heavy"
count = 2
[policy.user.heavy]
weight = 200
"""


def test_who_submits_a_hundred_guests_gets_no_more_and_who_has_twice_the_weight_gets_twice_as_much() -> None:
    report = simulate(parse_scenario(HUNDRED.encode(), "s.toml")).report
    got = {share.owner: share.got for share in report.shares}
    assert got["heavy"] == pytest.approx(2 * got["few"], rel=0.03)
    assert got["heavy"] == pytest.approx(2 * got["many"], rel=0.03)
    assert got["many"] <= got["few"] * 1.03

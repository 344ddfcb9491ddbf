"""Scenarios: hosts as discovery finds them, and who arrives when."""

from __future__ import annotations

from itertools import pairwise

import pytest

from orchestrator.core.durations import Duration, Spread
from orchestrator.core.model import EmulatorThreads, Mode, NumaWish, SmtWish
from orchestrator.core.policy import CorePolicy, Policy
from orchestrator.simulator.scenario import Arrival, GuestGroup, HostShape, Scenario, arrivals

MS, S = 10**6, 10**9


def scenario(*groups: GuestGroup, seed: int = 1, duration: str = "1 min") -> Scenario:
    return Scenario(title="a test", duration=Duration.parse(duration), seed=seed, host=HostShape(cpus=8), groups=groups)


def come(*groups: GuestGroup, seed: int = 1, duration: str = "1 min") -> list[Arrival]:
    return list(arrivals(scenario(*groups, seed=seed, duration=duration)))


def test_a_host_is_numbered_as_linux_does() -> None:
    host = HostShape(cpus=16, nodes=2, threads=2).topology(Policy())
    assert host.warnings == ()
    assert host.cores[:3] == ((0, 8), (1, 9), (2, 10))
    assert [node.cpus for node in host.nodes] == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert list(host.pool) == [2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize(("shape", "pool"), [(HostShape(cpus=3), 1), (HostShape(cpus=12, nodes=3, threads=2), 8)])
def test_every_shape_gives_a_host_without_a_warning(shape: HostShape, pool: int) -> None:
    host = shape.topology(Policy())
    assert (host.warnings, len(host.pool), len(host.nodes)) == ((), pool, shape.nodes)
    assert len({len(node.cpus) for node in host.nodes}) == 1


def test_the_policy_of_the_scenario_reserves_cores() -> None:
    assert list(HostShape(cpus=6).topology(Policy(cores=CorePolicy(reserved="4"))).pool) == [2, 3, 5]


def test_a_guest_is_as_its_group_says() -> None:
    (arrival,) = come(
        GuestGroup(
            name="db",
            owner="ann",
            vcpus=3,
            mode=Mode.EXCLUSIVE,
            weight=7,
            priority=2,
            emulator=EmulatorThreads.ISOLATE,
            numa=NumaWish.STRICT,
            smt=SmtWish.ISOLATE,
            arrive=Duration.parse("2 s"),
            stay=Spread.parse("3 s"),
        )
    )
    spec = arrival.spec
    assert (arrival.at, arrival.guest, arrival.owner, arrival.priority, arrival.leaves) == (
        2 * S,
        "db",
        "ann",
        2,
        5 * S,
    )
    assert (spec.name, spec.vcpus, spec.mode, spec.weight) == ("db", 3, "exclusive", 7)
    assert (spec.emulator, spec.numa, spec.smt) == ("isolate", "strict", "isolate")


def test_several_guests_are_numbered_and_dealt_to_owners_in_turn() -> None:
    found = come(GuestGroup(name="g", owner="o", count=5, owners=2))
    assert [(arrival.guest, arrival.owner) for arrival in found] == [
        ("g-1", "o-1"),
        ("g-2", "o-2"),
        ("g-3", "o-1"),
        ("g-4", "o-2"),
        ("g-5", "o-1"),
    ]
    assert {(arrival.at, arrival.leaves) for arrival in found} == {(0, None)}


def test_arrivals_are_in_order_of_moment_group_and_number() -> None:
    found = come(
        GuestGroup(name="a", owner="o", count=3, every=Spread.parse("1 s")),
        GuestGroup(name="b", owner="o", count=2),
        GuestGroup(name="c", owner="o", arrive=Duration.parse("1 s")),
    )
    assert [(arrival.at // S, arrival.guest) for arrival in found] == [
        (0, "a-1"),
        (0, "b-1"),
        (0, "b-2"),
        (1, "a-2"),
        (1, "c"),
        (2, "a-3"),
    ]


def test_a_flood_ends_with_the_simulation_and_is_drawn_from_its_spreads() -> None:
    flood = GuestGroup(
        name="f", owner="o", count=10**6, every=Spread.parse("100 ms to 300 ms"), stay=Spread.parse("1 s to 2 s")
    )
    found = come(flood)
    steps = [after.at - before.at for before, after in pairwise(found)]
    stays = [arrival.leaves - arrival.at for arrival in found if arrival.leaves is not None]
    assert 250 < len(found) < 350
    assert found[-1].at < 60 * S
    assert 100 * MS <= min(steps) < 120 * MS < 280 * MS < max(steps) <= 300 * MS
    assert S <= min(stays) < 1050 * MS < 1950 * MS < max(stays) <= 2 * S


def test_the_same_seed_gives_the_same_story_and_other_groups_do_not_change_it() -> None:
    flood = GuestGroup(name="f", owner="o", count=20, every=Spread.parse("1 s to 2 s"), stay=Spread.parse("1 s to 9 s"))
    other = GuestGroup(name="x", owner="o", count=5, every=Spread.parse("1 s to 2 s"))
    assert come(flood) == come(flood)
    assert come(flood) != come(flood, seed=2)
    assert [arrival for arrival in come(other, flood) if arrival.guest.startswith("f")] == come(flood)


def test_who_comes_at_the_end_does_not_come() -> None:
    assert come(GuestGroup(name="g", owner="o", arrive=Duration.parse("1 min"))) == []

"""The rotation by examples: Slurm's gang scheduling as oracle, wide gangs in a flood, classes, and what is told."""

from __future__ import annotations

import pytest

from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Guest, Rules
from orchestrator.errors import UsageError
from tests.unit.rotation_flaws import BackfillsForEver
from tests.unit.rotation_world import MS, RULES, World, pairs, singles

SECOND = 1000 * MS
TURN = RULES.slice + RULES.handover


def world(cores: int, *widths: int, rules: Rules = RULES) -> World:
    """Guests g0, g1 ... of one owner; their weights are their widths, so that each is entitled to the same *time*."""
    made = World(Rotation(rules, singles(cores)), singles(cores), rules)
    for number, width in enumerate(widths):
        made.add(Guest(id=f"g{number}", owner="o", width=width, weight=width))
    return made


def who_ran(made: World, seconds: float) -> list[set[str]]:
    """The sets of guests that ran together, one after the other."""
    end = made.now + int(seconds * SECOND)
    made.tick()
    seen = [set(made.running)]
    while (event := made.rotation.next_event()) is not None and event <= end:
        made.now = event
        made.tick()
        if set(made.running) != seen[-1]:
            seen.append(set(made.running))
    assert made.faults == []
    return seen


# What Slurm's documentation shows of its gang scheduler (gang_scheduling.html), on a cluster of five nodes.


def test_two_jobs_of_full_width_alternate() -> None:
    assert who_ran(world(5, 5, 5), 1) == [{"g0"}, {"g1"}] * 5


def test_a_job_that_is_in_nobodys_way_runs_on_while_two_others_alternate() -> None:
    made = world(5, 3, 2, 3)
    assert who_ran(made, 1) == [{"g0", "g1"}, {"g1", "g2"}] * 5
    assert made.running["g1"][0] == 0


def test_jobs_that_fit_together_run_together_and_alternate_with_one_of_full_width() -> None:
    assert who_ran(world(5, 3, 5, 2), 1) == [{"g0", "g2"}, {"g1"}] * 5


def test_the_job_that_has_waited_longest_goes_first() -> None:
    assert who_ran(world(5, 5, 5, 5), 1) == [{"g0"}, {"g1"}, {"g2"}] * 3 + [{"g0"}]


def flood(kind: type[Rotation], priority: int) -> tuple[World, int]:
    """A gang of the pool's width among one-core guests, 40 a second, each of which leaves when 30 more have come."""
    groups = singles(4)
    made = World(kind(RULES, groups), groups)
    made.add(Guest(id="wide", owner="w", width=4))
    for number in range(400):
        made.add(Guest(id=f"s{number}", owner=f"o{number % 7}", width=1, priority=priority))
        if number >= 30:
            made.remove(f"s{number - 30}")
        made.run(made.now + 25 * MS)
    return made, sum(run.guest == "wide" for _, decisions in made.log for run in decisions.runs)


@pytest.mark.parametrize(("priority", "at_least"), [(0, 8), (1, 2)])
def test_a_gang_as_wide_as_the_pool_runs_within_its_bound_in_an_endless_flood(priority: int, at_least: int) -> None:
    made, turns = flood(Rotation, priority)
    assert made.faults == []
    assert turns >= at_least


def test_a_flood_that_starves_it_is_noticed() -> None:
    made, _ = flood(BackfillsForEver, 0)
    assert any(fault.startswith("wait bound") for fault in made.faults)


def test_a_higher_class_preempts_after_the_minimum_run_and_goes_first() -> None:
    made = world(2, 1, 1)
    made.run(10 * MS)
    made.add(Guest(id="high", owner="h", width=2, priority=1))
    made.tick()
    assert made.rotation.waits(made.now)[0].reserved == 25 * MS
    made.run(30 * MS)
    assert set(made.running) == {"high"}
    made.run(400 * MS)
    assert set(made.running) == {"high"}
    assert made.faults == []


def test_a_guest_returns_to_the_cores_it_had() -> None:
    made = world(4, 2, 2, 2)
    made.run(SECOND)
    for guest in ("g0", "g1", "g2"):
        cores = {run.cores for _, decisions in made.log for run in decisions.runs if run.guest == guest}
        assert len(cores) <= 2
    assert made.faults == []


def test_nobody_is_stopped_and_no_tick_is_wanted_while_nobody_waits() -> None:
    made = world(4, 2, 1)
    made.run(10 * SECOND)
    assert made.rotation.next_event() is None
    assert [(run.guest, run.cores) for run in made.log[0][1].runs] == [("g0", (2, 3)), ("g1", (4,))]
    assert len(made.log) == 1


def test_siblings_are_given_together() -> None:
    groups = pairs(4)
    made = World(Rotation(RULES, groups), groups)
    for number, width in enumerate((1, 3, 1)):
        made.add(Guest(id=f"g{number}", owner="o", width=width))
    made.run(SECOND)
    assert {run.cores for _, decisions in made.log for run in decisions.runs if run.guest == "g1"} == {(2, 3, 4, 5)}
    assert made.faults == []


def test_units_of_different_size_count_as_the_smallest() -> None:
    rotation = Rotation(RULES, [(2, 3), (4,), (5, 6)])
    rotation.add(Guest(id="g", owner="o", width=2), 0)
    assert rotation.tick(0).runs[0].cores == (2, 3, 4)


def test_an_exclusive_guest_takes_cores_out_of_the_rotation_and_gives_them_back() -> None:
    made = world(3, 3)
    made.run(50 * MS)
    made.allow({2, 3})
    made.tick()
    assert made.running == {}
    (wait,) = made.rotation.waits(made.now)
    assert (wait.guest, wait.latest, made.rotation.next_event()) == ("g0", None, None)
    made.run(SECOND)
    made.allow({2, 3, 4})
    made.tick()
    assert made.running["g0"] == (SECOND, (2, 3, 4))
    assert made.faults == []


def test_a_guest_found_running_goes_on_where_it_is() -> None:
    rotation = Rotation(RULES, singles(4))
    rotation.add(Guest(id="a", owner="o", width=2), 0, running_on=[5, 3])
    rotation.add(Guest(id="b", owner="o", width=2), 0)
    rotation.add(Guest(id="c", owner="o", width=2), 0)
    assert [(run.guest, run.cores) for run in rotation.tick(0).runs] == [("b", (2, 4))]
    decisions = rotation.tick(TURN)
    assert [(stop.guest, stop.cores, stop.ran) for stop in decisions.stops] == [("b", (2, 4), TURN)]
    assert [(run.guest, run.cores) for run in decisions.runs] == [("c", (2, 4))]
    assert {turn.guest: (turn.cores, turn.since) for turn in rotation.turns()}["a"] == ((3, 5), 0)


def test_a_waiting_guest_is_told_why_and_how_long() -> None:
    made = world(4, 2, 1, 1, 4, 1)
    made.run(50 * MS)
    first, second = made.rotation.waits(made.now)
    assert (first.guest, first.position, first.width, first.owner, first.reserved) == ("g3", 1, 4, "o", TURN)
    assert (second.guest, second.position, second.reserved) == ("g4", 2, None)
    assert [turn.guest for turn in made.rotation.holders("g3", made.now)] == ["g0", "g1", "g2"]
    assert [turn.cores for turn in made.rotation.holders("g4", made.now)] == [(2, 3)]
    # By hand: due after 400 ms and four times the 105 ms * 4 units of a turn, of which its share is 4/8 of 4 units
    # (g4 had not come yet); then, with nobody before it, 2 * floor(8 / 5) + 1 rounds of 105 ms, and one hand-over.
    assert first.due == 400 * MS + 4 * 2 * TURN
    assert first.latest == first.due + 3 * TURN + RULES.handover


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rotation: rotation.add(Guest(id="a", owner="o", width=1), 0), "a: a shared guest of this name"),
        (lambda rotation: rotation.add(Guest(id="b", owner="o", width=1), 0, [2, 3]), "not 1 free units"),
        (lambda rotation: rotation.add(Guest(id="b", owner="o", width=1), 0, [9]), "not whole physical cores"),
        (lambda rotation: rotation.add(Guest(id="b", owner="o", width=0), 0), "width 0"),
        (lambda rotation: rotation.weigh_owner("o", 0), "weight 0"),
        (lambda _: Rules(slice=1, minimum=2, handover=0, patience=0), "0 < minimum <= slice"),
        (lambda _: Rotation(RULES, [(2, 3), (3,)]), "no core can be in two"),
    ],
)
def test_what_makes_no_sense_is_refused(change: object, message: str) -> None:
    rotation = Rotation(RULES, singles(4))
    rotation.add(Guest(id="a", owner="o", width=1), 0)
    assert callable(change)
    with pytest.raises(UsageError, match=message):
        change(rotation)

"""The figures of a simulation, from what is told of it."""

from __future__ import annotations

import json

import pytest

from orchestrator.core.durations import Duration
from orchestrator.core.policy import CorePolicy, Policy
from orchestrator.simulator.measures import MOST_REASONS, Measures
from orchestrator.simulator.report import Incident, Part, WorstWait, describe, fairness, jain, percentile
from orchestrator.simulator.scenario import GuestGroup, HostShape, Owner, Scenario

MS, S = 10**6, 10**9


def measures(units: int, *, threads: int = 1, policy: Policy | None = None) -> Measures:
    scenario = Scenario(
        title="a test",
        duration=Duration.parse("10 s"),
        host=HostShape(cpus=8, threads=threads),
        owners=(Owner(name="rich", weight=300),),
        groups=(GuestGroup(name="g", owner="a"),),
        policy=policy or Policy(),
    )
    return Measures(scenario, units)


def test_the_index_is_that_of_the_paper() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([1, 2]) == pytest.approx(0.9)
    assert jain([0, 0]) == 1


def test_who_is_due_too_little_is_left_out_and_each_class_is_judged_by_itself() -> None:
    even = [Part(0, 5, 10, 10), Part(0, 10, 20, 10)]
    uneven = [Part(1, 5, 10, 10), Part(1, 10, 10, 10)]
    told = fairness([*even, *uneven, Part(0, 0, 9, 10)])
    assert dict(told.classes) == pytest.approx({1: 0.9, 0: 1})
    assert told.index == pytest.approx(0.9)
    assert (told.counted, told.left_out) == (4, 1)
    assert fairness([Part(0, 0, 0, 10)]).index is None


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (0, 1), (100, 10)])
def test_percentiles_are_values_that_occurred(percent: int, value: int) -> None:
    assert percentile(range(1, 11), percent) == value
    assert percentile([], percent) == 0


def test_what_owners_got_is_compared_with_what_they_were_due() -> None:
    taken = measures(4)
    taken.enter("one", "a", 100, 0, 4, 0)
    taken.enter("two", "rich", 100, 0, 4, 0)
    taken.ran("one", 4, 0, 3 * S)
    taken.ran("two", 4, 3 * S, 10 * S)
    report = taken.report(10 * S, [])
    assert [(share.owner, share.weight, share.due, share.got) for share in report.shares] == [
        ("rich", 300, 30 * S, 28 * S),
        ("a", 100, 10 * S, 12 * S),
    ]
    expected = jain([1.2, 28 / 30])
    assert report.among_guests.index == report.among_owners.index == pytest.approx(expected)
    assert (report.guests, report.owners) == (2, 2)


def test_a_guest_that_got_nothing_counts_and_one_that_just_came_does_not() -> None:
    taken = measures(2)
    for guest, need in (("served", 1), ("starved", 1)):
        taken.enter(guest, guest, 100, 0, need, 0)
    taken.enter("late", "late", 100, 0, 2, 9 * S)
    taken.ran("served", 1, 0, 10 * S)
    report = taken.report(10 * S, [])
    assert report.among_guests.index == pytest.approx(0.5)
    assert (report.among_guests.counted, report.among_guests.left_out) == (2, 1)


def test_a_wait_is_held_against_its_bound_and_one_that_goes_on_too() -> None:
    taken = measures(1)
    for guest, came in (("long", 0), ("short", S), ("open", 7 * S)):
        taken.enter(guest, "a", 100, 0, 1, came)
    taken.waited("long", 0, 4 * S, 8 * S)
    taken.waited("short", S, 2 * S, S + 1500 * MS)
    told = taken.report(10 * S, [("open", 7 * S, 11 * S), ("wide", 0, None)]).waits
    assert (told.count, told.open, told.beyond, told.longest) == (2, 2, 0, 4 * S)
    assert told.worst == WorstWait("open", 3 * S, 4 * S)


def test_waits_beyond_their_bound_are_counted_whether_they_ended_or_not() -> None:
    taken = measures(1)
    taken.enter("late", "a", 100, 0, 1, 0)
    taken.waited("late", 0, 3 * S, 2 * S)
    taken.ran("late", 1, 3 * S, 4 * S)
    taken.waited("late", 4 * S, 5 * S, 5 * S)
    report = taken.report(10 * S, [("never", 0, 5 * S)])
    assert report.waits.beyond == 2
    assert report.waits.worst == WorstWait("never", 10 * S, 5 * S)
    assert report.shares[0].longest == 3 * S


def test_a_wait_does_not_begin_anew_because_a_turn_passed_that_could_not_begin() -> None:
    taken = measures(1)
    taken.enter("slow", "a", 100, 0, 1, 0)
    taken.waited("slow", 0, S, 2 * S)
    taken.ran("slow", 1, S, 2 * S)
    taken.waited("slow", 5 * S, 6 * S, 7 * S)
    taken.ran("slow", 1, 6 * S, 7 * S)
    told = taken.report(10 * S, [("slow", 9 * S, 12 * S)]).waits
    assert (told.longest, told.beyond) == (4 * S, 1)
    assert told.worst == WorstWait("slow", 4 * S, 2 * S)


@pytest.mark.parametrize(
    ("threads", "split", "cores"), [(1, False, 1), (2, False, 2), (2, True, 1)], ids=["plain", "smt", "smt split"]
)
def test_the_use_of_the_pool_follows_its_size_and_is_in_cores(threads: int, split: bool, cores: int) -> None:
    taken = measures(2, threads=threads, policy=Policy(cores=CorePolicy(split_cores=split)))
    taken.enter("one", "a", 100, 0, 1, 0)
    taken.resize(1, 6 * S)
    taken.ran("one", 1, 0, 8 * S)
    taken.handover("one", cores, S)
    taken.handover("a server", 5, S)
    taken.exclusive(3, S, 5 * S)
    taken.quarantined(2, S, 2 * S)
    report = taken.report(10 * S, [])
    assert report.use.capacity == 16 * S * cores
    assert (report.use.running, report.use.handover, report.use.idle) == pytest.approx((8 / 16, 1 / 16, 7 / 16))
    assert report.handovers == 1
    assert (report.exclusive, report.quarantined) == (12 * S, 2 * S)
    assert report.shares[0].got == 8 * S * cores


def test_refusals_and_failures_are_counted_with_the_first_of_each() -> None:
    taken = measures(1)
    for number in range(3):
        taken.refused(f"wide-{number}", "too wide", number * S)
    taken.failed("crashed", "g", 5 * S)
    report = taken.report(10 * S, [])
    assert (report.refused, report.reasons) == (3, (Incident("too wide", 3, "wide-0", 0),))
    assert report.failures == (Incident("crashed", 1, "g", 5 * S),)


def test_reasons_without_end_are_counted_but_not_kept() -> None:
    taken = measures(1)
    for number in range(MOST_REASONS + 5):
        taken.refused("g", f"reason {number}", 0)
    report = taken.report(10 * S, [])
    assert (report.refused, len(report.reasons)) == (MOST_REASONS + 5, MOST_REASONS)


def test_a_report_of_nothing_is_still_one_and_every_report_is_plain_json() -> None:
    nothing = measures(4).report(10 * S, [])
    assert (nothing.waits.worst, nothing.among_guests.index, nothing.use.idle) == (None, None, 1.0)
    taken = measures(1)
    taken.enter("one", "a", 100, 2, 1, 0)
    taken.waited("one", 0, S, 2 * S)
    taken.refused("two", "full", S)
    for report in (nothing, taken.report(10 * S, [])):
        told = describe(report)
        assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["reasons"] == [{"what": "full", "times": 1, "first": {"guest": "two", "seconds": 1.0}}]

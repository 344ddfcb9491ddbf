"""A policy that is changed while guests take turns: what it says holds from then on, for turns under way too."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest

from orchestrator.core.durations import Duration
from orchestrator.core.orders import Freeze, Happening, Kill
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import StartGuest
from orchestrator.core.policy import CorePolicy, HypervisorPolicy, Policy
from orchestrator.core.policy_change import take_over
from orchestrator.core.scheduler import Scheduler
from tests.unit.scheduler_flaws import LetsOldTurnsLast
from tests.unit.scheduler_world import MS, POLICY, ROTATION, World, spec, world


def turns_of(milliseconds: int, **times: int) -> Policy:
    changes = {key: Duration(value * MS) for key, value in times.items()}
    return replace(POLICY, rotation=replace(ROTATION, slice=Duration(milliseconds * MS), **changes))


def crowd(policy: Policy, kind: type[Scheduler] = Scheduler) -> World:
    """Seven guests on four cores, three of which wait."""
    host = world(6, policy=policy, kind=kind)
    host.delays = cycle([2 * MS, 4 * MS])
    for number in range(7):
        host.ask(StartGuest(spec=spec(f"g{number}"), owner="ann"))
    host.run(50)
    return host


def shortest_turn(host: World, since: int) -> int:
    """Milliseconds, of those that began after a moment and have ended."""
    return min(n.at - n.since for n in host.notices if n.what is Happening.TURN_ENDED and n.since > since) // MS


def test_shorter_turns_are_shorter_at_once_and_all_waits_are_promised_anew() -> None:
    host = crowd(turns_of(5000))
    long = max(wait.latest or 0 for wait in host.scheduler.waits(host.now))
    host.change(turns_of(50))
    short = max(wait.latest or 0 for wait in host.scheduler.waits(host.now))
    assert short < long - 4000 * MS
    host.run(3000)
    assert all(len(host.turns(f"g{number}")) > 5 for number in range(7))
    assert host.faults == []


def test_longer_turns_begin_as_those_under_way_end() -> None:
    host = crowd(turns_of(50))
    host.run(500)
    host.change(turns_of(1000))
    changed = host.now
    host.run(15_000)
    assert shortest_turn(host, changed + 3000 * MS) >= 900
    assert host.faults == []


def test_a_flaw_is_noticed() -> None:
    host = crowd(turns_of(5000), LetsOldTurnsLast)
    assert host.faults == []
    host.change(turns_of(50))
    host.run(6000)
    assert any(fault.startswith("wait bound") for fault in host.faults)


def test_who_has_been_told_something_has_no_longer_to_confirm_than_the_new_policy_says() -> None:
    host = crowd(turns_of(50, confirm=60_000, grace=60_000))
    host.deaf.add("g0")
    host.run(1000)
    host.change(turns_of(50, confirm=300, grace=200))
    host.run(301)
    assert any(isinstance(order, Freeze) and order.guest == "g0" for _, order in host.log)
    assert not any(isinstance(order, Kill) for _, order in host.log)
    host.run(300)
    assert not host.scheduler.knows("g0")
    slow = crowd(turns_of(50, confirm=300, grace=60_000))
    slow.deaf.add("g0")
    slow.run(1000)
    slow.change(turns_of(50, confirm=300, grace=100))
    slow.run(200)
    assert not slow.scheduler.knows("g0")


def test_a_new_floor_is_for_those_who_come() -> None:
    host = world(8)
    host.ask(StartGuest(spec=spec("web", 4, exclusive=True), owner="ann"))
    host.run(50)
    host.change(replace(POLICY, cores=CorePolicy(shared_floor=3)))
    assert host.turns("web") == [(2, 3, 4, 5)]
    assert isinstance(host.ask(StartGuest(spec=spec("db", exclusive=True), owner="ann")), Refusal)
    host.change(POLICY)
    assert not isinstance(host.ask(StartGuest(spec=spec("db", exclusive=True), owner="ann")), Refusal)


def test_an_idle_and_an_undersubscribed_pool_take_a_policy_too() -> None:
    host = world(6)
    host.change(turns_of(20))
    host.ask(StartGuest(spec=spec("a"), owner="ann"))
    host.run(10_000)  # long past its slice, since nobody waits
    host.change(turns_of(500))
    host.change(turns_of(10, minimum_run=1))
    for number in range(6):
        host.ask(StartGuest(spec=spec(f"b{number}"), owner="ann"))
    host.run(2000)
    assert len(host.turns("a")) > 10
    assert host.faults == []


@pytest.mark.parametrize("same", [Policy(), turns_of(20)])
def test_what_holds_to_the_end_is_kept_and_named(same: Policy) -> None:
    assert take_over(same, same) == (same, ())
    other = replace(
        same,
        cores=CorePolicy(reserved="6-7", shared_floor=2),
        hypervisor=HypervisorPolicy(connect="qemu:///system"),
        rotation=turns_of(30).rotation,
    )
    effective, kept = take_over(same, other)
    assert effective == replace(same, cores=CorePolicy(shared_floor=2), rotation=turns_of(30).rotation)
    assert [line.partition(":")[0] for line in kept] == ["cores.reserved", "hypervisor.connect"]

"""Quotas over time, on the virtual clock: warned, throttled, released, stopped; nobody starves unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.account import Account
from orchestrator.core.durations import Duration
from orchestrator.core.limits import Everyone, Group, OutOfTime, Quotas, User
from orchestrator.core.orders import Happening
from orchestrator.core.plan import PauseGuest, Plan, ResumeGuest
from orchestrator.core.policy import Policy, Starvation
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.snapshot import Known, Standing
from tests.unit.quota_world import HOUR, SECOND, QuotaWorld, quota_world
from tests.unit.scheduler_world import POLICY, host

SLACK = SECOND // 5
"""A hand-over or two, on some cores."""


def seconds(count: float) -> Duration:
    return Duration(int(count * SECOND))


def limited(quotas: Quotas = Quotas(), **limits: Any) -> Policy:  # noqa: B008  (a frozen value)
    return replace(POLICY, quotas=quotas, everyone=Everyone(**limits))


def today(world: QuotaWorld, owner: str) -> int:
    return world.scheduler.account.spent(world.now)[owner].today


def test_a_guest_past_its_budget_loses_its_turn_after_a_warning_and_has_turns_again_the_next_day() -> None:
    world = quota_world(limited(core_time_per_day=seconds(20)))
    world.start("a", "ann", 2)
    world.start("z", "zoe", 1)
    world.live(30)
    assert 20 * SECOND <= today(world, "ann") <= 20 * SECOND + SLACK
    told = world.told("a")
    assert told.index(Happening.WARNED) < told.index(Happening.THROTTLED)
    assert told.count(Happening.WARNED) == told.count(Happening.THROTTLED) == 1
    assert world.first("a", Happening.WARNED) <= 8 * SECOND + 1.1 * SECOND < world.first("a", Happening.THROTTLED)
    assert "a" not in world.may_run.values()
    assert world.scheduler.explain("a", world.now).reasons == (
        "it gets no turns now: core time per day of ann: 20 s of 20 s are used",
    )
    world.now += 12 * HOUR
    world.live(3)
    assert Happening.RELEASED in world.told("a")
    assert "a" in world.may_run.values()
    assert world.faults == []


def test_a_share_of_the_pool_is_held_in_a_sliding_window() -> None:
    quotas = Quotas(share_window=Duration.parse("1 min"))
    world = quota_world(limited(quotas, pool_share=25), cpus=6)  # 4 pool cores: 60 core seconds in a minute
    world.start("a", "ann", 4)
    longest = 0
    for _ in range(240):
        world.live(1)
        longest = max(longest, world.scheduler.account.spent(world.now)["ann"].in_window)
    assert longest <= 60 * SECOND + 4 * SLACK
    assert world.told("a").count(Happening.THROTTLED) >= 3
    assert today(world, "ann") >= 200 * SECOND, "all that it may have over four minutes, but for the window's parts"


def test_a_group_is_throttled_together() -> None:
    policy = replace(POLICY, group={"staff": Group(members=("ann", "ben"), core_time_per_day=seconds(10))})
    world = quota_world(policy)
    for guest, owner in (("a", "ann"), ("b", "ben"), ("z", "zoe")):
        world.start(guest, owner)
    world.live(10)
    assert 10 * SECOND <= today(world, "ann") + today(world, "ben") <= 10 * SECOND + SLACK
    assert set(world.may_run.values()) == {"z"}


@pytest.mark.parametrize(("quotas", "exclusive"), [(Quotas(out_of_time=OutOfTime.STOP), False), (Quotas(), True)])
def test_a_guest_is_stopped_by_policy_and_an_exclusive_one_always(quotas: Quotas, exclusive: bool) -> None:
    world = quota_world(limited(quotas, core_time_per_day=seconds(10)))
    world.start("a", "ann", 2, exclusive=exclusive)
    world.live(8)
    assert "core time per day of ann" in world.stopped["a"]
    assert not world.scheduler.knows("a")
    assert world.told("a").index(Happening.WARNED) < world.told("a").index(Happening.DONE, 2)
    assert 10 * SECOND <= today(world, "ann") <= 10 * SECOND + SLACK


def test_an_exclusive_guest_is_charged_for_the_cores_it_keeps_while_it_is_paused() -> None:
    world = quota_world(limited(core_time_per_day=seconds(100)))
    world.start("a", "ann", 2, exclusive=True)
    world.live(2)
    world.ask(PauseGuest("a"))
    world.live(10)
    assert today(world, "ann") == pytest.approx(24 * SECOND, abs=SLACK)


def test_a_throttled_guest_can_be_paused_and_resumed_and_stays_throttled() -> None:
    world = quota_world(limited(core_time_per_day=seconds(2)))
    world.start("a", "ann")
    world.live(5)
    assert isinstance(world.ask(PauseGuest("a")), Plan)
    world.live(1)
    assert isinstance(world.ask(ResumeGuest("a")), Plan)
    world.live(5)
    assert today(world, "ann") <= 2 * SECOND + SLACK
    assert world.faults == []


def test_no_guest_is_there_for_longer_than_it_may_be() -> None:
    world = quota_world(limited(longest_run=seconds(20)))
    world.start("a", "ann")
    world.live(15)
    assert Happening.WARNED_OF_END not in world.told("a")
    world.live(4)
    assert Happening.WARNED_OF_END in world.told("a")
    world.live(3)
    assert world.stopped == {"a": "longest run of ann: it has been there for 20 s"}


def test_who_keeps_many_cores_while_others_wait_loses_the_latest_of_them() -> None:
    policy = replace(POLICY, starvation=Starvation(exclusive_cores=2, exclusive_time=seconds(10)))
    world = quota_world(policy, cpus=8)
    for number in range(4):
        world.start(f"a{number}", "ann", exclusive=True)
        world.live(1)
    world.live(30)
    assert world.stopped == {}, "nobody waits"
    for guest in ("b", "c", "d"):
        world.start(guest, "ben")
    world.live(9)
    assert world.stopped == {}
    assert Happening.WARNED_OF_END in world.told("a3")
    assert Happening.WARNED_OF_END not in world.told("a0")
    world.live(3)
    assert set(world.stopped) == {"a2", "a3"}
    assert world.stopped["a3"] == "ann keeps more than 2 cores while others wait, for 10 s"


def test_a_guest_that_waits_nearly_as_long_as_it_can_have_to_is_told_of_with_the_reason() -> None:
    policy = replace(POLICY, starvation=Starvation(alarm=10))
    world = quota_world(policy, cpus=4)
    for number in range(8):
        world.start(f"s{number}", f"owner{number}")
    world.start("wide", "ann", 2)
    world.live(10)
    alarms = [notice for notice in world.notices if notice.what is Happening.ALARM]
    assert alarms
    waits = {(notice.guest, notice.since) for notice in alarms}
    assert len(waits) == len(alarms), "once for each wait"
    for notice in alarms:
        assert notice.why.startswith("it has waited ")
        assert "served before it" in notice.why or "it is next" in notice.why
    calm = quota_world(replace(POLICY, starvation=Starvation(alarm=100)), cpus=4)
    for number in range(8):
        calm.start(f"s{number}", f"owner{number}")
    calm.live(10)
    assert [notice for notice in calm.notices if notice.what is Happening.ALARM] == []


# Restarts and clock steps.


def comes_back(world: QuotaWorld, policy: Policy, away: float, wall_step: int = 0) -> QuotaWorld:
    """Kill the scheduler, and let another one take over what runs after so many seconds."""
    kept = world.scheduler.account.dump(world.now)
    before = world.scheduler.snapshot(world.now).guests
    running = {
        hold.holder: hold.cores for hold in world.scheduler.locks().holds if hold.holder in world.may_run.values()
    }
    world.now += int(away * SECOND)
    world.wall += wall_step
    account = Account(policy.quotas.share_window, world.moment(), kept)
    world.scheduler = Scheduler(host(6), policy, account=account)
    for guest, known in sorted(before.items(), key=lambda entry: not entry[1].exclusive):
        found: Known = replace(known, standing=Standing.ACTIVE, throttled="")
        world.scheduler.adopt(found, running.get(guest, known.kept), world.now, running=guest in running)
    world.scheduler.account.keep_only(before)
    world._waiting.clear()
    return world


@pytest.mark.parametrize("wall_step", [0, HOUR, -HOUR, 11 * HOUR, -30 * HOUR])
def test_a_budget_goes_on_over_restarts_whatever_the_clock_is_set_to(wall_step: int) -> None:
    policy = limited(core_time_per_day=seconds(60), longest_run=seconds(100))
    world = quota_world(policy)
    world.start("a", "ann", 2)
    for _ in range(3):
        world.live(5)
        comes_back(world, policy, 2, wall_step)
    assert today(world, "ann") == pytest.approx(42 * SECOND, abs=3 * SLACK), "it ran while nobody scheduled it"
    world.live(20)
    assert 60 * SECOND <= today(world, "ann") <= 60 * SECOND + SLACK
    assert Happening.THROTTLED in world.told("a")
    comes_back(world, policy, 1, wall_step)
    world.live(5)
    assert "a" not in world.may_run.values(), "a restart gives no time back"
    world.live(60)
    assert "longest run of ann" in world.stopped["a"]


def test_starts_are_counted_over_a_restart() -> None:
    policy = limited(starts_per_hour=2)
    world = quota_world(policy)
    world.start("a", "ann")
    world.start("b", "ann")
    world.live(1)
    comes_back(world, policy, 10, HOUR)
    assert not isinstance(world.start("c", "ann"), Plan)


# Shares by weight.


def test_a_user_at_twice_the_weight_has_twice_the_core_time() -> None:
    policy = replace(POLICY, user={"ann": User(weight=200)})
    world = quota_world(policy, cpus=3)
    for guest, owner in (("a", "ann"), ("b", "ben"), ("c", "cy")):
        world.start(guest, owner)
    world.live(60)
    mine, others = today(world, "ann"), [today(world, "ben"), today(world, "cy")]
    assert mine / others[0] == pytest.approx(2, rel=0.03)
    assert mine / others[1] == pytest.approx(2, rel=0.03)


def test_who_submits_a_hundred_guests_gets_no_more_than_who_submits_two() -> None:
    world = quota_world(POLICY, cpus=4)
    for number in range(100):
        world.start(f"many{number}", "ann")
    for number in range(2):
        world.start(f"few{number}", "ben")
    world.live(30)
    assert today(world, "ann") <= today(world, "ben") * 1.05
    assert world.faults == []

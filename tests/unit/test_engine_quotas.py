"""The engine keeps to quotas over time: it throttles, stops and writes down, on a virtual host and a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.account import CLOCK, Account
from orchestrator.core.discovery import discover
from orchestrator.core.durations import Duration
from orchestrator.core.lifecycle import State
from orchestrator.core.limits import Everyone, OutOfTime, OverQuota, Quotas
from orchestrator.core.model import Mode
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine
from orchestrator.errors import RefusedError
from orchestrator.quotas import Accounting, moment_of
from tests.fakes.calendar import FakeCalendar
from tests.fakes.engine import going, guest, launcher_on
from tests.fakes.host import FakeHost
from tests.unit.lifecycle_world import Diary


class Accounts(Diary):
    """Keeps the accounts too."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, str] = {}

    def keep_accounts(self, texts: Any) -> None:
        self.kept |= texts


class Scene:
    def __init__(self, policy: Policy, kept: dict[str, str] | None = None) -> None:
        self.host, self.notices, self.diary = FakeHost(), list[Notice](), Accounts()
        topology = discover({"cpu/online": "0-5"})
        calendar = FakeCalendar(self.host.clock)
        account = Account(policy.quotas.share_window, moment_of(calendar, 0), kept)
        self.engine = Engine(
            topology,
            policy,
            launcher_on(self.host, topology),
            self.host.clock,
            self.notices.append,
            self.diary,
            Accounting(calendar, account),
        )

    def play(self, story: Callable[[Scene], Awaitable[None]]) -> Scene:
        async def whole() -> None:
            async with going(self.engine):
                await story(self)
                self.engine._driver.raise_defect()

        asyncio.run(whole())
        return self

    def told(self, name: str) -> Sequence[Happening]:
        return [notice.what for notice in self.notices if notice.guest == name]


def limited(quotas: Quotas | None = None, **limits: Any) -> Policy:
    return replace(Policy(), quotas=quotas or Quotas(), everyone=Everyone(**limits))


def test_a_guest_that_is_out_of_time_waits_without_turns_and_says_why() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest("a", 2)])
        await scene.host.clock.sleep(20)
        assert scene.engine.state("a") is State.WAITING
        assert scene.engine.explain("a").reasons[0].startswith("it gets no turns now: core time per day of alice")

    scene = Scene(limited(core_time_per_day=Duration.parse("20 s"))).play(story)
    told = scene.told("a")
    assert told.index(Happening.WARNED) < told.index(Happening.THROTTLED)


def test_a_guest_that_is_to_be_stopped_is_stopped_once_and_told_why() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest("a", mode=Mode.EXCLUSIVE), guest("b")])
        await scene.host.clock.sleep(30)
        assert scene.engine.state("a") is State.STOPPED
        assert scene.engine.state("b") is State.STOPPED

    quotas = Quotas(out_of_time=OutOfTime.STOP)
    scene = Scene(limited(quotas, core_time_per_day=Duration.parse("20 s"))).play(story)
    for name in "ab":
        assert scene.told(name).count(Happening.OUT_OF_QUOTA) == 1
        assert [ending[0] for ending in scene.diary.endings].count(name) == 1


def test_what_was_used_is_written_down_and_goes_on() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest("a", 2)])
        await scene.host.clock.sleep(12)
        assert CLOCK in scene.diary.kept, "while it runs"

    first = Scene(limited()).play(story)
    assert set(first.diary.kept) == {CLOCK, "alice"}

    async def again(scene: Scene) -> None:
        assert scene.engine.foresee([guest("b")])
        with pytest.raises(RefusedError, match="core time per day of alice: wanted some, available 0 s of 20 s"):
            await scene.engine.start([guest("b")])

    Scene(limited(core_time_per_day=Duration.parse("20 s")), first.diary.kept).play(again)


def test_a_hundred_starts_at_once_cannot_pass_what_one_cannot() -> None:
    async def story(scene: Scene) -> None:
        starts = [scene.engine.start([guest(f"g{number}")]) for number in range(100)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 3
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert all(isinstance(one, RefusedError) for one in refused)
        assert {str(one).partition(": guests")[2] for one in refused} == {" of alice: wanted 1, available 0 of 3"}

    Scene(limited(guests=3)).play(story)


def test_the_oldest_guest_makes_room_if_that_helps_and_else_none_does() -> None:
    async def story(scene: Scene) -> None:
        for name in "ab":
            await scene.engine.start([guest(name)])
            await scene.host.clock.sleep(1)
        await scene.engine.start([guest("c")])
        assert [scene.engine.state(name) for name in "abc"] == [State.STOPPED, State.RUNNING, State.RUNNING]
        with pytest.raises(RefusedError, match="vcpus of alice: wanted 4, available 1 of 3"):
            await scene.engine.start([guest("d", 4)])
        assert [scene.engine.state(name) for name in "bc"] == [State.RUNNING, State.RUNNING]
        with pytest.raises(RefusedError, match="nothing was started"):
            await scene.engine.start([guest("e"), guest("f"), guest("g")])
        assert [scene.engine.state(name) for name in "bc"] == [State.RUNNING, State.RUNNING]

    Scene(limited(Quotas(over=OverQuota.STOP_OLDEST), guests=2, vcpus=3)).play(story)


def test_a_start_beyond_the_quota_waits_for_room_in_the_order_of_requests() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest("a")])
        waiting = [asyncio.create_task(scene.engine.start([guest(name)])) for name in "bc"]
        await scene.host.clock.sleep(5)
        assert not any(task.done() for task in waiting)
        await scene.engine.stop(["a"])
        await waiting[0]
        await scene.host.clock.sleep(1)
        assert not waiting[1].done()
        await scene.engine.stop(["b"])
        await waiting[1]
        with pytest.raises(RefusedError, match="wanted 9"):
            await scene.engine.start([guest("wide", 9)])
        given_up = asyncio.create_task(scene.engine.start([guest("d")]))
        await scene.host.clock.sleep(1)
        assert not scene.engine.give_up("c")
        assert scene.engine.give_up("d")
        with pytest.raises(RefusedError, match="d: not started, for the wait for room was given up"):
            await given_up

    scene = Scene(limited(Quotas(over=OverQuota.QUEUE), guests=1)).play(story)
    assert [notice.guest for notice in scene.notices if notice.what is Happening.QUEUED] == ["b", "c", "d"]

"""An engine follows its policy's windows: values change by the wall clock, and guests are dealt with as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.core.windows import effective
from orchestrator.engine import Engine
from orchestrator.errors import RefusedError
from orchestrator.planner import Planner
from orchestrator.policy_file import parse_policy
from orchestrator.quotas import Accounting
from tests.fakes.calendar import FakeCalendar
from tests.fakes.engine import going, guest, launcher_on
from tests.fakes.host import FakeHost

NIGHT = """
[[window]]
name = "night"
cron = "0 22 * * *"
duration = "8 h"
change = "{change}"
[window.set.cores]
shared_floor = 3
[window.set.user.alice]
priority = 2
weight = 300
"""
LESSON = """
[[reservation]]
name = "lesson"
owner = "bob"
cores = 3
at = "2026-03-02 12:02"
duration = "2 min"
notice = "1 min"
change = "drain"
"""


class Scene:
    """A host whose clock on the wall shows 21:59 (or what `start` says) at first; `lines` are what is told."""

    def __init__(self, text: str, start: datetime = datetime(2026, 3, 2, 21, 59), nodes: str = "0-5") -> None:
        self.host, self.notices, self.lines = FakeHost(), list[Notice](), list[str]()
        self.policy = parse_policy(text.encode(), "p.toml")
        given = {f"node/node{number}/cpulist": cpus for number, cpus in enumerate(nodes.split())}
        topology = discover({"cpu/online": "0-5", **given})
        self.calendar = FakeCalendar(self.host.clock, start)
        now = effective(self.policy, start).policy
        launcher, clock = launcher_on(self.host, topology), self.host.clock
        self.engine = Engine(topology, now, launcher, clock, self.notices.append, accounting=Accounting(self.calendar))
        self.taken: list[Policy] = []
        self.planner = Planner(self.engine, self.calendar, self.policy, self.lines.append, self.taken.append)

    def play(self, story: Callable[[Scene], Awaitable[None]]) -> Scene:
        async def whole() -> None:
            async with going(self.engine):
                planning = asyncio.create_task(self.planner.run(self.host.clock))
                try:
                    await story(self)
                finally:
                    planning.cancel()
                self.engine._driver.raise_defect()

        asyncio.run(whole())
        return self

    async def later(self, minutes: float) -> None:
        await self.host.clock.sleep(minutes * 60)

    def cores(self, name: str) -> set[int]:
        """Return where the threads of a guest may run."""
        domain = self.host.named(name)
        assert domain is not None
        return {core for thread in domain.threads.values() for core in thread.allowed}

    def told(self, name: str, what: Happening) -> list[str]:
        return [notice.why for notice in self.notices if (notice.guest, notice.what) == (name, what)]


def test_values_change_when_a_window_opens_and_when_it_closes() -> None:
    async def story(scene: Scene) -> None:
        assert scene.engine.policy.cores.shared_floor == 0
        await scene.later(2)
        assert scene.engine.policy.cores.shared_floor == 3
        assert scene.taken[-1] == scene.engine.policy
        with pytest.raises(RefusedError, match="pool cores left to shared guests: wanted 3, available 2"):
            await scene.engine.start([guest("a", 2, mode=Mode.EXCLUSIVE)])
        scene.calendar.start += timedelta(hours=8)
        await scene.later(1)
        assert scene.engine.policy.cores.shared_floor == 0

    scene = Scene(NIGHT.format(change="leave")).play(story)
    assert scene.lines == ["policy: window 'night' has begun", "policy: window 'night' is over"]


def test_who_does_not_fit_any_more_is_drained_the_youngest_first_and_told_why() -> None:
    async def story(scene: Scene) -> None:
        for name in "ab":
            await scene.engine.start([guest(name, mode=Mode.EXCLUSIVE)])
        await scene.engine.start([guest("s")])
        await scene.later(2)
        assert [scene.engine.state(name) for name in "abs"] == [State.RUNNING, State.STOPPED, State.RUNNING]

    scene = Scene(NIGHT.format(change="drain")).play(story)
    (why,) = scene.told("b", Happening.OUT_OF_QUOTA)
    assert why == (
        "window 'night' has begun, and it does not fit any more: "
        "pool cores left to shared guests: wanted 3, available 2"
    )


def test_who_is_left_stays_and_only_what_is_started_is_held_to_the_rules() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest("a", 2, mode=Mode.EXCLUSIVE)])
        await scene.later(2)
        assert scene.engine.state("a") is State.RUNNING

    scene = Scene(NIGHT.format(change="leave")).play(story)
    assert scene.told("a", Happening.OUT_OF_QUOTA) == []


def test_reserved_cores_are_not_given_away_from_the_notice_on_and_are_free_when_the_time_comes() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest("a", mode=Mode.EXCLUSIVE), guest("b", mode=Mode.EXCLUSIVE)])
        await scene.later(1.2)
        with pytest.raises(RefusedError, match="pool cores left to those for whom they are kept: wanted 3"):
            await scene.engine.start([guest("c", mode=Mode.EXCLUSIVE)])
        await scene.engine.start([guest("s", 2)])
        assert [scene.engine.state(name) for name in "ab"] == [State.RUNNING] * 2
        await scene.later(1)
        assert [scene.engine.state(name) for name in "ab"] == [State.RUNNING, State.STOPPED]
        await scene.later(2)
        await scene.engine.start([guest("c", mode=Mode.EXCLUSIVE)])

    scene = Scene(LESSON, datetime(2026, 3, 2, 12)).play(story)
    assert scene.lines[0] == "policy: notice of reservation 'lesson' has begun"
    assert scene.told("b", Happening.OUT_OF_QUOTA)[0].startswith("notice of reservation 'lesson' is over; reservation")


def test_a_users_priority_and_weight_change_for_guests_that_take_turns() -> None:
    async def story(scene: Scene) -> None:
        await scene.engine.start([guest(f"g{number}") for number in range(6)])
        await scene.later(0.1)
        known = scene.engine._scheduler.snapshot(scene.engine._driver.now()).guests
        assert {entry.priority for entry in known.values()} == {2}
        waits = scene.engine._scheduler.waits(scene.engine._driver.now())
        assert {wait.priority for wait in waits} == {2}
        assert len(waits) + len(scene.engine._scheduler.turns()) == 6

    Scene(NIGHT.format(change="leave"), datetime(2026, 3, 2, 21, 59, 57)).play(story)


def test_a_clock_that_is_set_is_followed_within_seconds() -> None:
    async def story(scene: Scene) -> None:
        scene.calendar.start += timedelta(hours=3)
        await scene.later(0.1)
        assert scene.engine.policy.cores.shared_floor == 3
        scene.calendar.start -= timedelta(hours=12)
        await scene.later(0.1)
        assert scene.engine.policy.cores.shared_floor == 0

    Scene(NIGHT.format(change="leave")).play(story)


def test_another_plan_is_in_force_at_once() -> None:
    async def story(scene: Scene) -> None:
        await scene.later(2)
        other = parse_policy(NIGHT.format(change="leave").replace("= 3", "= 2").encode(), "p.toml")
        assert scene.planner.plan(other) == ()
        assert scene.engine.policy.cores.shared_floor == 2

    Scene(NIGHT.format(change="leave")).play(story)


def test_who_can_be_moved_to_a_better_place_is_moved_when_a_window_opens_and_is_told_why() -> None:
    async def story(scene: Scene) -> None:
        for name in "xyz":
            await scene.engine.start([guest(name, mode=Mode.EXCLUSIVE)])
        await scene.engine.stop(["x"])
        await scene.engine.start([guest("wide", 2, mode=Mode.EXCLUSIVE)])
        await scene.engine.stop(["y"])
        assert scene.cores("wide") == {2, 5}, "one of them is in another node"
        await scene.later(2)
        assert scene.cores("wide") == {3, 5}
        assert scene.engine.explain("wide").cores == (3, 5)
        assert scene.engine.state("wide") is State.RUNNING
        assert scene.cores("z") == {4}

    text = NIGHT.format(change="move").replace("shared_floor = 3", "shared_floor = 0")
    scene = Scene(text, nodes="0-2 3-5").play(story)
    assert scene.told("wide", Happening.MOVES) == ["window 'night' has begun: to a better place"]
    assert scene.told("z", Happening.MOVES) == []

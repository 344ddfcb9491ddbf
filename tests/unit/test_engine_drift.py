"""Threads that somebody else has moved: put back at once, told, counted, and recorded with what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.bounds import bounds
from orchestrator.core.discovery import discover
from orchestrator.core.model import Mode, Network, NetworkKind, Share, Tpm
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.pins import Standing, adrift
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine, RunningGuest
from orchestrator.errors import HostError
from orchestrator.recorder import Unrecorded
from tests.fakes.engine import engine_on, going, guest, launcher_on
from tests.fakes.groups import FakeGroups
from tests.fakes.host import Astray, FakeBackEnd, FakeHost, Faults


class Intents(Unrecorded):
    def __init__(self) -> None:
        self.found: list[Mapping[str, Any]] = []
        self.full = False

    async def intend(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "put back":
            if self.full:
                raise HostError("the disk is full")
            self.found.append(body)


class Scene:
    """A guest of two vCPUs on cores 2 and 3, and what is told of it."""

    def __init__(self, faults: Faults | None = None, *, grouped: bool = False) -> None:
        self.host = FakeHost(faults or Faults())
        self.records = Intents()
        self.notices: list[Notice] = []
        topology = discover({"cpu/online": "0-7"}, ())
        self.groups = FakeGroups(self.host)
        launcher = replace(launcher_on(self.host, topology), groups=self.groups if grouped else None)
        self.engine = Engine(topology, Policy(), launcher, self.host.clock, self.notices.append, self.records)

    def play(self, act: Callable[[Scene, RunningGuest], None], **wishes: Any) -> RunningGuest:
        async def story() -> None:
            async with going(self.engine):
                await self.engine.start([guest(vcpus=2, **wishes)])
                self.notices.clear()
                act(self, self.engine.guests["beat"])
                await asyncio.sleep(0)

        asyncio.run(story())
        return self.engine.guests["beat"]

    def move(self, vcpu: int, *cores: int) -> int:
        domain = self.host.named("beat")
        assert domain is not None
        tid = domain.roles.vcpus[vcpu]
        domain.threads[tid] = replace(domain.threads[tid], allowed=frozenset(cores))
        return tid

    def allowed(self, tid: int) -> frozenset[int]:
        domain = self.host.named("beat")
        assert domain is not None
        return domain.threads[tid].allowed

    @property
    def told(self) -> list[tuple[Happening, str]]:
        return [(notice.what, notice.why) for notice in self.notices]


def test_a_thread_that_was_moved_is_put_back_told_counted_and_recorded() -> None:
    tids: list[int] = []

    def act(scene: Scene, _: RunningGuest) -> None:
        tids.append(scene.move(1, 0))
        scene.engine.keep_in_place()
        scene.engine.keep_in_place()

    scene = Scene()
    assert scene.play(act).put_back == 1
    (tid,) = tids
    assert scene.allowed(tid) == {3}
    (told,) = scene.told
    assert told[0] is Happening.PUT_BACK
    assert told[1].startswith(f"thread {tid} (")
    assert told[1].endswith("may run on 0, its placement gives it 3; put back")
    (body,) = scene.records.found
    assert body["guest"] == "beat"
    assert body["put_back"] is True
    (found,) = body["found"]
    assert (found["thread"], found["allowed"], found["placement"]) == (tid, "0", "3")


def test_nothing_is_told_while_all_are_where_they_belong() -> None:
    scene = Scene()
    assert scene.play(lambda scene, _: scene.engine.keep_in_place()).put_back == 0
    assert scene.told == []


def test_a_thread_in_a_real_time_class_is_calmed() -> None:
    def act(scene: Scene, running: RunningGuest) -> None:
        scene.host.realtime.add(running.roles.vcpus[0])
        scene.engine.keep_in_place()

    scene = Scene()
    scene.play(act)
    assert scene.host.realtime == set()
    assert [why.partition(") ")[2] for _, why in scene.told] == ["is in a real-time class; put back"]


def test_a_process_in_another_cgroup_is_brought_back_first() -> None:
    def act(scene: Scene, _: RunningGuest) -> None:
        scene.move(0, 0)
        scene.host.captive.add("beat")
        scene.engine.keep_in_place()

    scene = Scene()
    assert scene.play(act).put_back == 1
    assert "gather beat" in scene.host.trace
    assert [what for what, _ in scene.told] == [Happening.PUT_BACK]


def test_a_process_that_was_taken_out_of_its_cgroup_is_brought_back_and_pinned() -> None:
    def act(scene: Scene, running: RunningGuest) -> None:
        assert scene.groups.bounds[str(running.domain.uuid)] == bounds(running.domain)
        scene.groups.inside[running.pid or 0] = "/evil"
        scene.engine.keep_in_place(still=False)
        assert scene.told == [], "that is looked at once a second"
        tids.append(scene.move(1, 0))
        scene.host.captive.add("beat")
        scene.engine.keep_in_place()
        scene.engine.keep_in_place()
        scene.groups.inside[running.pid or 0] = "/evil"
        scene.engine.keep_in_place()
        assert not scene.groups.elsewhere(str(running.domain.uuid), running.pid or 0)

    tids: list[int] = []
    scene = Scene(grouped=True)
    assert scene.play(act).put_back == 2
    assert scene.allowed(tids[0]) == {3}
    assert [why.partition("; thread")[0] for _, why in scene.told] == [
        "its process was in the cgroup /evil",
        "its process was in the cgroup /evil; put back",
    ]
    assert [(body["cgroup"], len(body["found"])) for body in scene.records.found] == [("/evil", 1), ("/evil", 0)]


def test_a_guest_that_ends_leaves_no_cgroup() -> None:
    async def story() -> int:
        scene = Scene(grouped=True)
        async with going(scene.engine):
            await scene.engine.start([guest()])
            assert len(scene.groups.bounds) == 1
            await scene.engine.stop(["beat"])
            return len(scene.groups.bounds)

    assert asyncio.run(story()) == 0


def test_a_guest_that_has_been_killed_is_let_end_before_all_else() -> None:
    def act(scene: Scene, running: RunningGuest) -> None:
        scene.host.realtime.add(running.roles.vcpus[0])
        scene.host.dying.add("beat")
        scene.engine.keep_in_place()
        assert scene.host.realtime == {running.roles.vcpus[0]}

    scene = Scene()
    assert scene.play(act).put_back == 0
    assert scene.told == []


def test_what_cannot_be_put_back_is_told_once() -> None:
    def act(scene: Scene, running: RunningGuest) -> None:
        name = next(thread.name for thread in scene.host.named("beat").threads.values())  # type: ignore[union-attr]  # it runs
        scene.host.faults = Faults(astray={"beat": Astray(name, frozenset({0, 1}))})
        for _ in range(3):
            scene.engine.keep_in_place()
        assert running.put_back == 0

    scene = Scene()
    scene.play(act)
    (told,) = scene.told
    assert told[0] is Happening.ASTRAY
    assert "it cannot be put back" in told[1]
    assert [body["put_back"] for body in scene.records.found] == [False]


def test_a_guest_that_is_being_moved_is_left_to_who_moves_it() -> None:
    def act(scene: Scene, running: RunningGuest) -> None:
        scene.move(0, 6)
        running.reseating = True
        scene.engine.keep_in_place()
        running.reseating = False
        assert scene.told == []

    Scene().play(act)


def test_a_journal_that_takes_nothing_keeps_no_thread_astray() -> None:
    def act(scene: Scene, _: RunningGuest) -> None:
        scene.records.full = True
        scene.move(0, 1)
        scene.engine.keep_in_place()

    scene = Scene()
    assert scene.play(act).put_back == 1
    assert [why for _, why in scene.told][1:] == ["that is not in the journal: the disk is full"]


@pytest.mark.parametrize(
    ("allowed", "realtime", "words"),
    [
        ({2}, False, None),
        ({2, 3}, False, "may run on 2-3, its placement gives it 2"),
        ({2}, True, "is in a real-time class"),
        ({0}, True, "may run on 0, its placement gives it 2 and is in a real-time class"),
    ],
)
def test_what_is_adrift(allowed: set[int], realtime: bool, words: str | None) -> None:
    standing = {7: Standing(frozenset(allowed), realtime), 8: Standing(frozenset({2, 3}))}
    found = adrift(standing, {0: 7}, [2], [2, 3])
    assert [str(each) for each in found] == ([] if words is None else [words])


def test_who_stands_still_may_be_left_out_of_a_look_and_is_put_right_by_the_next_whole_one() -> None:
    async def story() -> tuple[bool, int, int]:
        host = FakeHost()
        engine = engine_on(host)
        async with going(engine):
            await engine.start([guest("beat", vcpus=2)])
            await engine.pause("beat")
            domain, running = host.named("beat"), engine.guests["beat"]
            assert domain is not None
            tid = domain.roles.vcpus[1]
            domain.threads[tid] = replace(domain.threads[tid], allowed=frozenset({0}))
            engine.keep_in_place(still=False)
            left = domain.threads[tid].allowed == {0}
            before = running.put_back
            engine.keep_in_place()
            return left, before, running.put_back

    assert asyncio.run(story()) == (True, 0, 1)


# Beside QEMU.

BESIDE: dict[str, Any] = {"shares": (Share(path="/srv", tag="t"),), "tpm": Tpm()}
BRIDGED: dict[str, Any] = {"network": Network(kind=NetworkKind.BRIDGE, name="br0")}
HERE = "/run/orchestrator/guests/beat"


def test_a_back_end_that_was_moved_or_hurried_is_put_back() -> None:
    scene = Scene()

    def act(scene: Scene, guest: RunningGuest) -> None:
        moved = scene.host.back_ends[HERE]["tpm"]
        moved.standing = Standing(frozenset({0, 1}), realtime=True)
        scene.engine.keep_in_place(still=False)
        assert moved.standing == Standing(frozenset({1}))
        assert guest.put_back == 1
        scene.engine.keep_in_place()

    scene.play(act, **BESIDE)
    (told,) = scene.told
    assert told[0] is Happening.PUT_BACK
    assert "(beside) may run on 0-1, its placement gives it 1 and is in a real-time class; put back" in told[1]
    assert [found["placement"] for found in scene.records.found[0]["found"]] == ["1"]


def test_threads_of_the_kernel_are_where_the_emulator_is_from_the_start_and_are_put_back() -> None:
    scene = Scene()
    worker = FakeBackEnd(7, None, Standing(frozenset(range(8))))
    scene.host.workers["beat"] = [worker]

    def act(scene: Scene, guest: RunningGuest) -> None:
        assert worker.standing.allowed == frozenset(guest.domain.placement.emulator) == {2, 3}
        scene.engine.keep_in_place()
        assert not scene.told
        worker.standing = Standing(frozenset({0}))
        scene.engine.keep_in_place()
        assert worker.standing.allowed == {2, 3}
        late = FakeBackEnd(8, None, Standing(frozenset(range(8))))  # of a queue that the guest has just begun to use
        scene.host.workers["beat"].append(late)
        scene.engine.keep_in_place()
        assert late.standing.allowed == {2, 3}

    scene.play(act, **BRIDGED)
    assert [what for what, _ in scene.told] == [Happening.PUT_BACK] * 2


def test_threads_of_the_kernel_go_along_when_a_guest_is_moved() -> None:
    scene = Scene()
    worker = FakeBackEnd(7, None, Standing(frozenset(range(8))))
    scene.host.workers["beat"] = [worker]

    async def story() -> None:
        async with going(scene.engine):
            await scene.engine.start([guest(vcpus=2, mode=Mode.EXCLUSIVE, **BRIDGED)])
            await scene.engine.move("beat", (5, 6))
            assert worker.standing.allowed == {5, 6}

    asyncio.run(story())


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_guest_whose_back_end_has_ended_is_ended_when_that_is_seen_twice(looks: int) -> None:
    scene = Scene()

    async def story() -> RunningGuest:
        async with going(scene.engine):
            await scene.engine.start([guest(vcpus=2, **BESIDE)])
            scene.host.back_ends[HERE]["share0"].ended = True
            for _ in range(looks):
                scene.engine.keep_in_place()
            for _ in range(50):
                await asyncio.sleep(0)
            return scene.engine.guests["beat"]

    found = asyncio.run(story())
    assert found.over == (looks > 1)
    if looks > 1:
        assert found.crashed
        assert found.ended == "its back end share0 has ended: told to end"
        assert scene.host.trace.count("kill beat") == 1
        assert not scene.host.back_ends

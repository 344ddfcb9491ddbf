"""Stops: a guest may shut down by itself for as long as its definition says; a kill waits for nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode
from orchestrator.errors import FailedError
from orchestrator.launch import Launcher
from tests.fakes.clock import FakeClock
from tests.fakes.engine import guest
from tests.fakes.host import Faults
from tests.fakes.hypervisor import FakeHypervisor
from tests.unit.lifecycle_world import Stage, linux, play, seconds, stage

STUBBORN = Faults(ignores_power_button=["beat"])
PRESSED = "press power button of beat"


async def stopped(scene: Stage, mode: Mode = Mode.SHARED) -> None:
    await scene.start(linux(mode=mode))
    await scene.engine.stop(["beat"])


@pytest.mark.parametrize("mode", Mode)
def test_a_guest_that_listens_to_its_power_button_shuts_down_at_once(mode: Mode) -> None:
    scene = play(stage(), lambda scene: stopped(scene, mode))
    assert PRESSED in scene.host.trace
    assert scene.host.clock.now() == 0
    assert (scene.state(), scene.ended(), scene.host.domains) == (State.STOPPED, "stopped", {})
    assert scene.diary.endings == [("beat", "stopped", "stopped")]


@pytest.mark.parametrize("mode", Mode)
def test_one_that_does_not_is_ended_by_force_after_its_grace(mode: Mode) -> None:
    scene = play(stage(STUBBORN), lambda scene: stopped(scene, mode))
    assert scene.host.clock.now() == 10
    assert (scene.state(), scene.ended(), scene.host.domains) == (State.STOPPED, "stopped", {})


def test_it_has_its_turns_and_others_theirs_while_it_shuts_down() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(linux(stop_grace=seconds(3)), guest("a", 2))
        await scene.rest(1)
        stopping = asyncio.create_task(scene.engine.stop(["beat"]))
        await scene.rest()
        assert scene.state() is State.STOPPING
        before = scene.continued(), scene.continued("a")
        await scene.rest(2)
        assert scene.continued() > before[0] + 5
        assert scene.continued("a") > before[1] + 5
        await stopping
        assert scene.state("a") is State.RUNNING

    scene = play(stage(STUBBORN), story)
    assert scene.host.clock.now() < 4.2
    assert scene.host.clashes == []


def test_a_payload_and_a_paused_guest_are_ended_at_once() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(), linux("still"))
        await scene.engine.pause("still")
        assert scene.state("still") is State.PAUSED
        await scene.engine.stop(["beat", "still"])

    scene = play(stage(STUBBORN), story)
    assert not [line for line in scene.host.trace if line.startswith("press")]
    assert scene.host.clock.now() == 0


def test_a_kill_overtakes_a_stop_and_both_return() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(linux())
        stopping = asyncio.create_task(scene.engine.stop(["beat"]))
        await scene.rest()
        again = asyncio.create_task(scene.engine.stop(["beat"]))
        await scene.engine.kill("beat")
        await stopping
        await again

    scene = play(stage(STUBBORN), story)
    assert scene.host.clock.now() < 1
    assert (scene.ended(), scene.diary.endings) == ("killed", [("beat", "killed", "stopped")])


def test_a_guest_that_panics_as_it_shuts_down_is_stopped_all_the_same() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(linux())
        stopping = asyncio.create_task(scene.engine.stop(["beat"]))
        await scene.rest()
        scene.host.says("beat", "GUEST_PANICKED", action="pause")
        scene.host.ends("beat")
        await stopping

    scene = play(stage(STUBBORN), story)
    assert (scene.state(), scene.ended()) == (State.STOPPED, "stopped")
    assert scene.host.clock.now() < 1


def test_a_guest_that_does_not_obey_as_it_shuts_down_is_ended_by_force_too() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(linux(stop_grace=seconds(5)), guest("a", 2))
        await scene.until_it_runs("beat")
        with pytest.raises(FailedError, match="did not confirm"):
            await scene.engine.stop(["beat"])
        assert scene.state() is State.QUARANTINED
        await scene.rest(10)

    scene = play(stage(Faults(ignores_power_button=["beat"], deaf=["beat"])), story)
    assert (scene.state(), scene.ended()) == (State.STOPPED, "stopped")
    assert [domain.name for domain in scene.host.domains.values()] == ["a"]
    assert scene.host.clashes == []


def test_a_user_who_pauses_is_no_scheduler_who_preempts() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(linux("a", 2), linux("b", 2))
        await scene.engine.pause("a")
        assert scene.state("a") is State.PAUSED
        before = scene.continued("a")
        await scene.rest(2)
        assert (scene.state("a"), scene.continued("a")) == (State.PAUSED, before)
        await scene.engine.resume("a")
        assert scene.state("a") in (State.WAITING, State.RUNNING)
        await scene.until_it_runs("a")
        assert scene.state("b") is State.WAITING

    play(stage(), story)


@dataclass
class SlowToForget(FakeHypervisor):
    """A libvirt that needs time to forget a domain whose process has ended."""

    clock: FakeClock

    async def remove(self, uuid: str) -> bool:
        domain = self._host.domains.get(uuid)
        if domain is not None and domain.pid is not None:
            self._host.ends(domain.name, "destroyed")
        await self.clock.sleep(0.05)
        return await super().remove(uuid)


@pytest.mark.parametrize("how", ["stop", "kill", "shut down"])
def test_what_is_cleared_away_is_never_the_next_guest_of_that_name(how: str) -> None:
    def slow(launcher: Launcher) -> Launcher:
        hypervisor = launcher.hypervisor
        assert isinstance(hypervisor, FakeHypervisor)
        host = hypervisor._host
        forgetful = SlowToForget(host.clock)
        forgetful._host = host
        return replace(launcher, hypervisor=forgetful)

    async def story(scene: Stage) -> None:
        await scene.start(guest())
        match how:
            case "stop":
                await scene.engine.stop(["beat"])
                assert scene.host.domains == {}
            case "kill":
                await scene.engine.kill("beat")
                assert scene.host.domains == {}
            case _:
                scene.host.ends("beat", how)
                await scene.rest()
        await scene.start(guest())
        await scene.rest(1)

    scene = play(stage(adapt=slow), story)
    assert scene.state() is State.RUNNING
    assert [domain.state for domain in scene.host.domains.values()] == ["running"]

"""Trouble: noticed at once, told of in words, and followed by what the definition says."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.core.life import Life
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode, OnCrash, RestartRules
from orchestrator.engine import Engine
from orchestrator.errors import FailedError, ImpossibleTransitionError, RefusedError
from orchestrator.ports import DomainEvent, DomainEventKind
from orchestrator.upkeep import Upkeep
from tests.fakes.engine import engine_on, guest
from tests.fakes.host import FakeHost, Faults
from tests.unit.lifecycle_world import PANIC, Act, Stage, in_trouble, panics, play, stage


def watchdog_pauses(host: FakeHost) -> None:
    host.says("beat", "WATCHDOG", action="pause")


def watchdog_powers_off(host: FakeHost) -> None:
    host.says("beat", "WATCHDOG", action="poweroff")
    host.ends("beat")


def triple_faults(host: FakeHost) -> None:
    host.says("beat", "SHUTDOWN", guest=True, reason="guest-reset")
    host.ends("beat")


def crashes(host: FakeHost) -> None:
    host.ends("beat")


def libvirt_says_it_panicked(host: FakeHost) -> None:
    host.events.put_nowait(DomainEvent("beat", DomainEventKind.CRASHED, "guest panicked"))


STANDS: list[tuple[Act, str]] = [
    (panics, PANIC),
    (libvirt_says_it_panicked, PANIC),
    (watchdog_pauses, "its watchdog fired (pause)"),
    (lambda _: None, "no new line on its serial port for 3 s of its own time"),
]
"""Trouble after which the process is still there."""

ENDS: list[tuple[Act, str]] = [
    (watchdog_powers_off, "its watchdog fired (poweroff)"),
    (triple_faults, "it rebooted, which a bare-metal image never does on purpose"),
    (crashes, "QEMU failed"),
]
"""Trouble that ends the process."""


@pytest.mark.parametrize(("act", "why"), [*STANDS, *ENDS])
@pytest.mark.parametrize("mode", Mode)
def test_a_guest_in_trouble_is_stopped_and_its_owner_can_read_why(act: Act, why: str, mode: Mode) -> None:
    scene = play(stage(), lambda scene: in_trouble(scene, act, OnCrash.STOP, mode=mode))
    assert scene.state() is State.STOPPED
    assert (scene.ended(), scene.engine.guests["beat"].crashed) == (why, True)
    assert scene.diary.endings == [("beat", why, "failed")]
    assert (scene.engine.holders(), scene.host.domains) == ({}, {})
    assert scene.continued() == 1


@pytest.mark.parametrize(("act", "why"), STANDS)
@pytest.mark.parametrize("mode", Mode)
def test_a_guest_that_is_kept_stands_still_with_its_process(act: Act, why: str, mode: Mode) -> None:
    async def story(scene: Stage) -> None:
        await in_trouble(scene, act, OnCrash.KEEP, mode=mode)
        await scene.start(guest("next", 2 - (mode is Mode.EXCLUSIVE)))
        await scene.until_it_runs("next")
        assert scene.state() is State.CRASHED_KEPT
        assert scene.engine.guests["beat"].pid is not None
        assert ("beat" in scene.engine.holders().values()) is (mode is Mode.EXCLUSIVE)
        assert scene.engine.explain("beat").reasons == (f"{why}; it stands still for inspection until it is stopped",)
        for ask in (scene.engine.resume, scene.engine.pause):
            with pytest.raises(RefusedError, match="nor moved; `orchestrator stop beat` ends it"):
                await ask("beat")
        assert (scene.continued(), scene.diary.endings) == (1, [])
        await scene.engine.stop(["beat"])

    scene = play(stage(), story)
    assert (scene.state(), scene.ended(), scene.diary.endings) == (State.STOPPED, why, [("beat", why, "failed")])
    assert scene.host.clashes == []


@pytest.mark.parametrize(("act", "why"), ENDS)
def test_of_a_process_that_has_ended_nothing_is_kept(act: Act, why: str) -> None:
    scene = play(stage(), lambda scene: in_trouble(scene, act, OnCrash.KEEP))
    assert (scene.state(), scene.ended(), scene.engine.holders()) == (State.STOPPED, why, {})


@pytest.mark.parametrize(("act", "why"), [*STANDS, *ENDS])
def test_a_guest_is_restarted_when_it_has_backed_off(act: Act, why: str) -> None:
    async def story(scene: Stage) -> None:
        await in_trouble(scene, act, OnCrash.RESTART)
        assert (scene.state(), scene.ended(), scene.engine.holders()) == (State.BACKING_OFF, None, {})
        assert scene.engine.explain("beat").reasons[0].startswith(f"{why}; it is restarted in ")
        with pytest.raises(RefusedError, match=r"beat: guest name: .* alice has a guest of this name, backing-off"):
            await scene.start(guest())
        await scene.rest(1)
        assert scene.state() is State.RUNNING

    scene = play(stage(), story)
    assert scene.diary.begun == ["beat", "beat"]
    assert scene.diary.endings == [("beat", f"{why}; restarted in 1 s", "failed")]


def test_a_guest_that_comes_to_trouble_again_and_again_is_given_up() -> None:
    rules = RestartRules(limit=2)

    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.RESTART, restart=rules))
        for _ in range(3):
            await scene.until_it_runs("beat")
            panics(scene.host)
            await scene.rest()

    scene = play(stage(), story)
    assert scene.state() is State.STOPPED
    assert [how for _, how, _ in scene.diary.endings] == [
        f"{PANIC}; restarted in 1 s",
        f"{PANIC}; restarted in 2 s",
        f"{PANIC}; given up: restarted 2 times within 10 min, which is all that its definition allows",
    ]
    assert scene.host.clock.now() < 4


def test_a_restart_that_is_refused_is_given_up_with_the_reason() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest("beat", 2, on_crash=OnCrash.RESTART))
        panics(scene.host)
        await scene.rest()
        await scene.start(guest("web", mode=Mode.EXCLUSIVE))
        await scene.rest(2)

    scene = play(stage(), story)
    assert scene.state() is State.STOPPED
    assert scene.ended() == (f"{PANIC}; not restarted: beat: shared pool cores: wanted 2, available 1 (web keeps 2)")
    assert scene.diary.endings[-1] == ("beat", scene.ended(), "failed")


def test_a_restart_that_fails_is_trouble_again() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.RESTART))
        panics(scene.host)
        await scene.rest()
        scene.host.faults = Faults(start=["beat"])
        await scene.rest(1)
        assert scene.state() is State.BACKING_OFF
        scene.host.faults = Faults()
        await scene.rest(2)

    scene = play(stage(), story)
    assert scene.state() is State.RUNNING
    assert scene.diary.endings[-1][1] == "the guest does not start: beat was told to fail; restarted in 2 s"


@pytest.mark.parametrize("faults", [Faults(start=["beat"]), Faults(dies_on_resume=["beat"])])
def test_a_first_launch_that_fails_is_not_tried_again(faults: Faults) -> None:
    async def story(scene: Stage) -> None:
        with pytest.raises(FailedError):
            await scene.start(guest(on_crash=OnCrash.RESTART, mode=Mode.EXCLUSIVE))
        await scene.rest(5)

    scene = play(stage(faults), story)
    assert (scene.state(), scene.host.domains) == (State.STOPPED, {})
    assert [scene.ended(name) for name in scene.engine.guests] == [how for _, how, _ in scene.diary.endings]
    assert len(scene.diary.endings) == len(scene.diary.begun)


def test_a_start_that_fails_leaves_what_is_known_of_the_guest_before_it() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest())
        await scene.engine.stop(["beat"])
        scene.host.faults = Faults(start=["beat"])
        with pytest.raises(FailedError):
            await scene.start(guest())

    scene = play(stage(), story)
    assert (scene.ended(), scene.diary.endings) == ("stopped", [("beat", "stopped", "stopped")])


def test_a_crash_that_is_noticed_by_an_order_is_told_of_as_one() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(), guest("a", 2))
        await scene.rest(1)

    scene = play(stage(Faults(dies_on_stop=["beat"])), story)
    assert (scene.state(), scene.ended()) == (State.STOPPED, "QEMU failed")


def test_a_guest_to_be_kept_that_does_not_stand_still_is_quarantined() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.KEEP))
        panics(scene.host)
        await scene.rest(1)
        assert scene.state() is State.FAILED
        assert scene.engine.explain("beat").reasons == (f"{PANIC}; it is being seen to",)
        await scene.rest(2)
        assert scene.state() is State.QUARANTINED
        await scene.rest(10)

    scene = play(stage(Faults(deaf=["beat"])), story)
    assert (scene.state(), scene.ended()) == (State.STOPPED, PANIC)


@pytest.mark.parametrize("patience", [0.0, 0.5], ids=["it has failed", "it backs off"])
def test_a_guest_that_ends_while_its_kill_is_written_down_is_not_restarted(patience: float) -> None:
    """As one does that somebody else kills at the same moment."""

    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.RESTART))

        async def meanwhile() -> None:
            scene.diary.meanwhile = None
            crashes(scene.host)
            while scene.state() is State.RUNNING:
                await scene.rest()
            await scene.rest(patience)

        scene.diary.meanwhile = meanwhile
        await scene.engine.kill("beat")
        await scene.rest(5)

    scene = play(stage(), story)
    assert (scene.state(), scene.diary.begun) == (State.STOPPED, ["beat"])


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_guest_that_backs_off_can_be_ended(how: str) -> None:
    async def story(scene: Stage) -> None:
        await in_trouble(scene, panics, OnCrash.RESTART)
        await (scene.engine.stop(["beat"]) if how == "stop" else scene.engine.kill("beat"))
        assert scene.ended() == f"{PANIC}; {'stopped before it was restarted' if how == 'stop' else 'killed'}"
        await scene.rest(5)

    scene = play(stage(), story)
    assert (scene.state(), scene.diary.begun) == (State.STOPPED, ["beat"])
    assert [kind for _, _, kind in scene.diary.endings] == ["failed", "stopped"]


def test_a_guest_that_is_stopped_as_it_comes_to_trouble_is_not_restarted() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.RESTART))
        stopping = asyncio.create_task(scene.engine.stop(["beat"]))
        panics(scene.host)
        await stopping
        await scene.rest(5)

    scene = play(stage(), story)
    assert (scene.state(), scene.diary.begun) == (State.STOPPED, ["beat"])


def test_a_pause_that_trouble_overtakes_fails_and_says_so() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(mode=Mode.EXCLUSIVE))
        pausing = asyncio.create_task(scene.engine.pause("beat"))
        await scene.rest()
        panics(scene.host)
        with pytest.raises(FailedError, match=f"beat: {PANIC}"):
            await pausing
        await scene.rest()

    scene = play(stage(Faults(deaf=["beat"])), story)
    assert (scene.state(), scene.ended()) == (State.STOPPED, PANIC)


def test_a_guest_that_does_not_obey_is_in_trouble_when_its_process_is_gone() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.RESTART), guest("a", 2), guest("b", 2))
        await scene.until_it_runs("beat")
        while scene.state() is not State.QUARANTINED:
            await scene.rest(0.1)
        assert "freeze beat" in scene.host.trace
        scene.host.faults = Faults()
        while scene.state() is State.QUARANTINED:
            await scene.rest(0.1)
        assert scene.state() is State.BACKING_OFF
        await scene.until_it_runs("beat")

    scene = play(stage(Faults(deaf=["beat"])), story)
    assert scene.diary.endings == [("beat", "it did not confirm within 2 s; restarted in 1 s", "failed")]
    assert scene.host.clashes == []


# Engines with a flaw, which these checks find.


async def panicked_beside_others(scene: Stage) -> None:
    await scene.start(guest(on_crash=OnCrash.KEEP), guest("a", 2))
    await scene.until_it_runs("beat")
    scene.host.trace.clear()
    panics(scene.host)
    await scene.rest(2)


class Preempts(Upkeep):
    """Takes a panic for a guest's standing still between two turns."""

    def _see_to_trouble(self, name: str, life: Life) -> None:  # noqa: ARG002
        life.state, life.cause = State.RUNNING, None


def test_an_engine_to_which_a_panic_is_a_preemption_revives_the_guest() -> None:
    assert play(stage(), panicked_beside_others).continued() == 0
    flawed = stage()
    Preempts(flawed.engine._driver, lambda _: None)
    assert play(flawed, panicked_beside_others).continued() > 0


def test_a_life_that_goes_where_it_cannot_go_ends_the_run() -> None:
    async def story(engine: Engine, host: FakeHost) -> None:
        running = asyncio.create_task(engine.run())
        await engine.start([guest()])
        engine._driver.lives["beat"].state = State.BACKING_OFF
        host.ends("beat")
        with pytest.raises(ImpossibleTransitionError, match="backing-off cannot come to"):
            await running

    host = FakeHost()
    asyncio.run(story(engine_on(host), host))

"""What is no trouble: ends on purpose, reboots, guests that speak or wait; and what was kept is found again."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.config import decode_guest
from orchestrator.core.lifecycle import State
from orchestrator.core.model import OnCrash, Watchdog
from orchestrator.errors import RefusedError
from orchestrator.ports import DomainEvent, DomainEventKind
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import FakeHost
from tests.unit.lifecycle_world import PANIC, Stage, in_trouble, linux, panics, play, seconds, stage


@pytest.mark.parametrize(
    ("detail", "how"), [("shut down", "shut down"), ("destroyed", "ended by somebody else (host-signal)")]
)
def test_a_guest_that_ends_on_purpose_is_not_restarted(detail: str, how: str) -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(on_crash=OnCrash.RESTART))
        scene.host.ends("beat", detail)
        await scene.rest(5)

    scene = play(stage(), story)
    assert (scene.state(), scene.ended(), scene.engine.guests["beat"].crashed) == (State.STOPPED, how, False)
    assert scene.diary.endings == [("beat", how, "stopped")]


def test_a_guest_may_reboot_and_be_reset_but_not_all_the_time() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(linux(watchdog=Watchdog.RESET))
        for _ in range(20):
            scene.host.says("beat", "RESET", guest=False, reason="host-qmp-system-reset")
        for _ in range(5):
            scene.host.says("beat", "WATCHDOG", action="reset")
            scene.host.says("beat", "RESET", guest=True, reason="guest-reset")
        await scene.rest()
        assert scene.state() is State.RUNNING
        scene.host.says("beat", "RESET", guest=True, reason="guest-reset")
        await scene.rest()

    assert play(stage(), story).ended() == "it rebooted 6 times within 10 min of its own time"


def test_a_guest_that_speaks_or_waits_or_is_paused_is_not_silent() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(*(guest(name, 2, heartbeat_limit=seconds(3)) for name in "abc"))
        for number in range(10):
            await scene.rest(0.8)
            for name in "ab":
                scene.host.prints(name, b"heartbeat %d\n" % number)
        assert {scene.state("a"), scene.state("b"), scene.state("c")} <= {State.WAITING, State.RUNNING}
        await scene.engine.pause("a")
        await scene.rest(10)
        assert scene.state("a") is State.PAUSED
        assert (scene.state("b"), scene.state("c")) == (State.STOPPED, State.STOPPED)

    play(stage(), story)


def test_an_unfinished_line_is_not_one() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest(heartbeat_limit=seconds(2)))
        for _ in range(40):
            await scene.rest(0.1)
            scene.host.prints("beat", b".")

    assert play(stage(), story).state() is State.STOPPED


def test_a_late_word_about_the_process_before_this_one_is_no_matter() -> None:
    async def story(scene: Stage) -> None:
        await in_trouble(scene, panics, OnCrash.RESTART)
        await scene.until_it_runs("beat")
        scene.host.events.put_nowait(DomainEvent("beat", DomainEventKind.STOPPED, "destroyed"))
        await scene.rest()

    assert play(stage(), story).state() is State.RUNNING


def test_a_guest_that_was_kept_is_found_so_by_a_scheduler_that_comes_back() -> None:
    host = FakeHost()

    async def story() -> None:
        first = engine_on(host)
        async with going(first):
            await first.start([guest(on_crash=OnCrash.KEEP)])
            panics(host)
            await host.clock.sleep(0.1)
        domain = host.named("beat")
        assert domain is not None
        domain.state = "crashed"
        engine = engine_on(host)
        assert await engine.adopt(decode_guest) == []
        async with going(engine):
            await host.clock.sleep(1)
            assert engine.state("beat") is State.CRASHED_KEPT
            with pytest.raises(RefusedError, match=PANIC):
                await engine.resume("beat")
            await engine.stop(["beat"])
            assert engine.state("beat") is State.STOPPED

    asyncio.run(story())
    assert host.trace.count("continue beat") == 1

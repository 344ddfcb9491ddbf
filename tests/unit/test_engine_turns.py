"""Hand-overs as the host sees them: the next guest is told right after the last has stopped, and once."""

from __future__ import annotations

import asyncio
from collections import Counter

from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine
from tests.fakes.engine import engine_on, going, guest, launcher_on
from tests.fakes.host import FakeHost, Faults

NAMES = ("a", "b", "c")


def rotated(cpus: str, faults: Faults, seconds: float = 3) -> tuple[list[str], list[Notice]]:
    """Let three guests take turns; return what the host was asked, and what was told."""
    host, heard = FakeHost(faults), list[Notice]()
    made = engine_on(host, cpus=cpus)
    engine = Engine(made.topology, Policy(), launcher_on(host, made.topology), host.clock, on_notice=heard.append)

    async def story() -> None:
        async with going(engine):
            await engine.start([guest(name) for name in NAMES])
            await host.clock.sleep(seconds)
            engine._driver.raise_defect()

    asyncio.run(story())
    return host.trace, heard


def test_each_turn_is_begun_once_and_right_after_the_one_before_was_over() -> None:
    trace, heard = rotated("0-2", Faults())
    began = Counter(notice.guest for notice in heard if notice.what is Happening.TURN_BEGAN)
    assert set(began) == set(NAMES)
    assert min(began.values()) > 5
    assert Counter(line.split()[1] for line in trace if line.startswith("continue ")) == began
    second = max(trace.index(f"continue {name}") for name in NAMES) + 1  # from then on all have run before
    for last, after in zip(trace[second:], trace[second + 1 :], strict=False):
        if last.startswith("stop "):
            assert after.startswith("continue ")
            assert after.split()[1] != last.split()[1]


def test_a_guest_that_cannot_be_let_run_ends_and_the_others_go_on() -> None:
    trace, heard = rotated("0-2", Faults(dies_on_resume={"b"}))
    ended = {notice.guest for notice in heard if notice.what is Happening.GONE}
    assert ended <= {"b"}
    began = Counter(notice.guest for notice in heard if notice.what is Happening.TURN_BEGAN)
    assert min(began["a"], began["c"]) > 5
    assert Counter(line.split()[1] for line in trace if line.startswith("continue "))["b"] == 1

"""The Clock port: the fake and the real one agree on what little there is to agree on."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.host.clock import MonotonicClock
from orchestrator.ports import Clock
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize("clock", [FakeClock(), MonotonicClock()], ids=["fake", "real"])
def test_a_sleeper_wakes_when_its_time_has_come_and_others_act_meanwhile(clock: Clock) -> None:
    woke: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        began = clock.now()
        await clock.sleep(seconds)
        assert clock.now() - began >= seconds * 0.999  # a real timer may be early by its resolution
        woke.append(name)

    async def story() -> None:
        await asyncio.gather(sleeper("late", 0.02), sleeper("soon", 0.001), sleeper("at once", 0))

    asyncio.run(story())
    assert woke == ["at once", "soon", "late"]

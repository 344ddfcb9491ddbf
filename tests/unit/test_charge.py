"""What guests are charged for, and the kernel's own figure beside it."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.charge import LEAST, Charge
from orchestrator.core.model import Mode
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine
from tests.fakes.engine import engine_on, going, guest, launcher_on
from tests.fakes.host import FakeHost, Faults

SECOND = 1_000_000_000
spans = st.lists(st.tuples(st.integers(0, 5 * SECOND), st.integers(0, 4)), max_size=20)


@given(spans, st.integers(0, SECOND), st.integers(0, 100))
def test_a_kernel_that_counts_what_was_charged_or_less_is_no_drift(
    intervals: list[tuple[int, int]], before: int, idle: int
) -> None:
    charge, now, used = Charge().first_look(before), 0, 0
    for length, cores in intervals:
        charge = charge.runs(now, cores)
        now += length
        used += length * cores
    charge = charge.runs(now, 0)
    assert charge.until(now + SECOND) == used
    assert charge.drift(now, before + used * (100 - idle) // 100) == 0
    assert charge.drift(now, before + used + LEAST) == 0
    beyond = LEAST + used // 10 + 1
    assert charge.drift(now, before + used + beyond) == beyond


def told(faults: Faults, seconds: float) -> tuple[Engine, list[Notice]]:
    """Two guests that share a core with a third and one on a core of its own, looked at each second."""
    host, heard = FakeHost(faults), list[Notice]()
    made = engine_on(host, cpus="0-3")
    engine = Engine(made.topology, Policy(), launcher_on(host, made.topology), host.clock, on_notice=heard.append)

    async def story() -> None:
        async with going(engine):
            await engine.start([guest("web", mode=Mode.EXCLUSIVE), guest("a"), guest("b")])
            for _ in range(int(seconds)):
                await host.clock.sleep(1)
                engine.look()

    asyncio.run(story())
    return engine, [notice for notice in heard if notice.what is Happening.DRIFT]


def test_guests_that_keep_to_their_turns_do_not_drift() -> None:
    engine, drifts = told(Faults(), 30)
    assert drifts == []
    charged = {name: each.charge.until(30 * SECOND) / SECOND for name, each in engine.guests.items()}
    assert abs(charged["web"] - 30) < 0.5
    assert abs(charged["a"] + charged["b"] - 30) < 0.5
    assert min(charged["a"], charged["b"]) > 13
    assert all(each.cpu_seconds <= charged[name] + 0.1 for name, each in engine.guests.items())


def test_a_guest_that_works_while_it_is_to_stand_still_is_told_of_once() -> None:
    engine, drifts = told(Faults(works_on=["a"]), 30)
    (notice,) = drifts
    assert notice.guest == "a"
    assert "more than its turns account for" in notice.why
    assert engine.guests["a"].drift > 10 * SECOND
    assert engine.guests["b"].drift == 0

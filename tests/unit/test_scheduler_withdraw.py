"""A guest in trouble is withdrawn: it never runs again, and a shared one gives its cores on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.acts import Continue, Phase
from orchestrator.core.orders import Happening
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import PauseGuest, Plan, StartGuest, StopGuest
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.snapshot import Standing
from tests.unit.scheduler_world import MS, World, spec, world


def crowd(kind: type[Scheduler] = Scheduler) -> World:
    """Two exclusive guests and five shared ones on six pool cores."""
    host = world(8, delays=[2 * MS, 5 * MS, 3 * MS], kind=kind)
    for name in ("web", "db"):
        host.ask(StartGuest(spec=spec(name, exclusive=True), owner="ann"))
    for number in range(5):
        host.ask(StartGuest(spec=spec(f"g{number}", number % 3 + 1), owner="bob"))
    return host


def runs_after_withdrawal(host: World, name: str, milliseconds: int) -> int:
    """Let a guest be withdrawn after so long; return how often it is told to run then."""
    host.run(milliseconds)
    host.scheduler.withdraw(name, "its kernel panicked", host.now)
    seen = len(host.log)
    host.run(3000)
    return sum(isinstance(order, Continue) and order.guest == name for _, order in host.log[seen:])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["web", "g0", "g1", "g2"]), st.integers(12, 900))
def test_a_withdrawn_guest_never_runs_again_and_the_others_do(name: str, milliseconds: int) -> None:
    host = crowd()
    assert runs_after_withdrawal(host, name, milliseconds) == 0
    assert host.scheduler.phase(name) is (Phase.HELD if name == "web" else None)
    others = [f"g{number}" for number in range(5) if f"g{number}" != name]
    assert all(host.ran(other) > 500 * MS for other in others)  # a turn goes on while nobody waits, so none is counted
    assert host.told(name)[-1] is not Happening.TURN_BEGAN
    assert host.faults == []
    assert isinstance(host.ask(StopGuest(name)), Plan)
    host.run(100)
    assert not host.scheduler.knows(name)
    assert host.faults == []


@pytest.mark.parametrize("name", ["web", "g0"])
def test_its_plan_is_carried_out_no_further(name: str) -> None:
    host = crowd()
    host.run(50)
    host.deaf = {name}
    while host.scheduler.phase(name) is not Phase.RUNNING:
        host.run(1)
    host.ask(PauseGuest(name))
    host.run(5)
    host.scheduler.withdraw(name, "its kernel panicked", host.now)
    host.run(3000)
    told = [notice.what for notice in host.notices if (notice.guest, notice.why) == (name, "its kernel panicked")]
    assert told == [Happening.UNDONE, Happening.WITHDRAWN]
    assert host.scheduler.snapshot(host.now).guests[name].standing is Standing.QUARANTINED  # it never confirmed


def test_a_guest_that_is_being_ended_is_left_to_that() -> None:
    host = crowd()
    host.run(50)
    host.ask(StopGuest("g0"))
    host.scheduler.withdraw("g0", "its kernel panicked", host.now)
    host.scheduler.withdraw("nobody", "its kernel panicked", host.now)
    host.run(100)
    assert host.told("g0")[-1] is Happening.DONE
    assert Happening.WITHDRAWN not in host.told("g0")


def test_a_withdrawn_guest_leaves_room_for_a_wide_one() -> None:
    host = crowd()
    host.run(50)
    wide = StartGuest(spec=spec("wide", 2, exclusive=True), owner="cid")
    assert isinstance(host.ask(wide), Refusal)
    host.scheduler.withdraw("g2", "its kernel panicked", host.now)
    host.run(50)
    assert isinstance(host.ask(wide), Plan)


class Preempts(Scheduler):
    """Takes trouble for the end of a turn."""

    def withdraw(self, guest: str, why: str, now: int) -> None:  # noqa: ARG002
        self.tick(now)


def test_a_scheduler_that_only_preempts_is_noticed() -> None:
    assert runs_after_withdrawal(crowd(Preempts), "g0", 100) > 0

"""The scheduler by examples: what it orders, in which order, and what becomes of failures."""

from __future__ import annotations

import pytest

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.orders import Freeze, Happening, Kill
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import PauseGuest, Plan, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.snapshot import Standing
from orchestrator.core.steps import End, Launch
from tests.unit.scheduler_flaws import ForetellsOnHeldCores
from tests.unit.scheduler_world import MS, World, floor, spec, world


def start(host: World, name: str, vcpus: int = 1, *, exclusive: bool = False, owner: str = "ann") -> Plan | Refusal:
    return host.ask(StartGuest(spec=spec(name, vcpus, exclusive=exclusive), owner=owner))


def standing(host: World, guest: str) -> Standing:
    return host.scheduler.snapshot(host.now).guests[guest].standing


def test_an_exclusive_guest_is_launched_on_its_locked_cores_and_runs_there_for_good() -> None:
    host = world(6)
    start(host, "web", 2, exclusive=True)
    host.run(1000)
    orders = [type(order) for _, order in host.log]
    assert orders == [Launch, Continue]
    assert host.turns("web") == [(2, 3)]
    assert host.scheduler.snapshot(host.now).shared == {4, 5}
    assert host.faults == []


def test_shared_guests_take_turns_and_each_waits_for_the_others_stop() -> None:
    host = world(4)
    for name in ("a", "b", "c"):
        start(host, name, 2)
    host.run(2000)
    assert min(len(host.turns(name)) for name in ("a", "b", "c")) >= 5
    halted: set[str] = set()
    for _, order in host.log:
        if isinstance(order, Halt):
            halted.add(order.guest)
    assert halted == {"a", "b", "c"}
    assert host.faults == []


def test_who_is_next_on_the_same_cores_is_known_when_the_last_stands_still() -> None:
    host = world(3)
    for name in ("a", "b", "c"):
        start(host, name)
    host.run(1000)
    turns = sum(len(host.turns(name)) for name in ("a", "b", "c"))
    assert host.foretold >= turns - 2  # the first one had nobody before it, and the last has not begun
    assert host.faults == []


def test_a_gang_that_waits_for_other_cores_too_is_not_foretold() -> None:
    faults = {}
    for kind in (Scheduler, ForetellsOnHeldCores):
        host = world(6, delays=(2 * MS, 9 * MS, 5 * MS), kind=kind)
        for number in range(4):
            start(host, f"s{number}")
        start(host, "gang", 4)
        host.run(2000)
        faults[kind] = host.faults
        assert host.turns("gang")
    assert faults[Scheduler] == []
    assert any("was foretold" in fault for fault in faults[ForetellsOnHeldCores])


def test_an_exclusive_guest_waits_until_the_shared_ones_have_left_its_cores() -> None:
    host = world(6, delays=(7 * MS,))
    for number in range(4):
        start(host, f"s{number}")
    host.run(300)
    start(host, "web", 2, exclusive=True)
    before = host.now
    host.run(500)
    launched = next(at for at, order in host.log if isinstance(order, Launch) and order.guest == "web")
    assert launched == before + 7 * MS
    assert host.turns("web") == [(2, 3)]
    assert all(set(cores) <= {4, 5} for at, cores in began(host, "s") if at > launched)
    assert host.faults == []


def began(host: World, prefix: str) -> list[tuple[int, tuple[int, ...]]]:
    return [
        (notice.at, notice.cores)
        for notice in host.notices
        if notice.what is Happening.TURN_BEGAN and notice.guest.startswith(prefix)
    ]


def test_stopping_an_exclusive_guest_gives_its_cores_to_those_who_wait() -> None:
    host = world(4)
    start(host, "web", 1, exclusive=True)
    start(host, "a")
    start(host, "b")
    host.run(500)
    host.ask(StopGuest("web"))
    host.run(500)
    assert not host.scheduler.knows("web")
    assert [cores for at, cores in began(host, "") if at > 500 * MS] == [(2,)]
    assert host.faults == []


def test_a_paused_guest_gets_no_turns_until_it_is_resumed() -> None:
    host = world(3)
    start(host, "a")
    start(host, "b")
    host.run(500)
    host.ask(PauseGuest("a"))
    host.run(100)
    assert standing(host, "a") is Standing.PAUSED
    turns = len(host.turns("a"))
    host.run(1000)
    assert len(host.turns("a")) == turns
    host.ask(ResumeGuest("a"))
    host.run(1000)
    assert standing(host, "a") is Standing.ACTIVE
    assert len(host.turns("a")) > turns
    assert host.faults == []


def test_a_paused_exclusive_guest_keeps_its_cores() -> None:
    host = world(4)
    start(host, "web", 1, exclusive=True)
    host.run(100)
    host.ask(PauseGuest("web"))
    host.run(100)
    assert host.may_run == {}
    assert host.scheduler.snapshot(host.now).shared == {3}
    host.ask(ResumeGuest("web"))
    host.run(100)
    assert host.may_run == {2: "web"}


def test_a_failed_launch_leaves_nothing_behind() -> None:
    host = world(6)
    host.unlucky = {"web", "a"}
    start(host, "web", 2, exclusive=True)
    start(host, "a", 2)
    host.run(100)
    snapshot = host.scheduler.snapshot(host.now)
    assert (len(snapshot.guests), sorted(snapshot.shared), len(snapshot.gangs)) == (0, [2, 3, 4, 5], 0)
    assert host.told("web")[-1] is host.told("a")[-1] is Happening.UNDONE
    assert next(notice.why for notice in host.notices if notice.what is Happening.UNDONE) == "no such disk"
    host.unlucky = set()
    assert isinstance(start(host, "web", 4, exclusive=True), Plan)


def test_the_cores_of_a_guest_that_crashed_are_given_on_at_once() -> None:
    host = world(3)
    start(host, "a")
    start(host, "b")
    host.run(50)
    runner = next(iter(host.may_run.values()))
    host.crash(runner)
    host.run(10)
    assert list(host.may_run.values()) == [({"a", "b"} - {runner}).pop()]
    assert host.told(runner)[-1] is Happening.GONE
    assert host.faults == []


def test_a_guest_that_does_not_confirm_its_stop_is_frozen_then_killed_and_its_cores_stay_locked_till_then() -> None:
    host = world(4)
    host.deaf = {"bad"}
    for name in ("bad", "a", "b"):
        start(host, name)
    host.run(2500)
    assert standing(host, "bad") is Standing.QUARANTINED
    bad = host.scheduler.snapshot(host.now).guests["bad"].kept
    assert host.may_run[bad[0]] == "bad"
    host.run(2000)
    assert [type(order) for _, order in host.log if order.guest == "bad"][-2:] == [Halt, Freeze]
    host.run(4000)
    assert [type(order) for _, order in host.log if order.guest == "bad"][-1] is Kill
    assert not host.scheduler.knows("bad")
    assert host.scheduler.snapshot(host.now).shared == {2, 3}
    assert {host.may_run[2], host.may_run[3]} == {"a", "b"}
    assert host.faults == []


def test_a_guest_that_is_ended_has_its_turns_until_it_is_gone() -> None:
    host = world(3, delays=(2 * MS,))
    start(host, "a")
    host.run(50)
    host.ask(StopGuest("a"))
    assert [type(order) for _, order in host.log] == [Launch, Continue, End]
    host.run(50)
    assert host.told("a")[-2:] == [Happening.DISCHARGED, Happening.DONE]


def test_two_requests_about_one_guest_do_not_mix() -> None:
    host = world(4)
    start(host, "a")
    refusal = host.ask(StopGuest("a"))
    assert isinstance(refusal, Refusal)
    assert str(refusal) == "guest at rest: wanted nothing under way, available it is starting"
    host.run(50)
    assert isinstance(host.ask(StopGuest("a")), Plan)


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_what_is_so_already_takes_no_step(name: str) -> None:
    host = world(4)
    start(host, "a")
    host.run(50)
    if name == "pause":
        host.ask(PauseGuest("a"))
        host.run(50)
    request = PauseGuest("a") if name == "pause" else ResumeGuest("a")
    plan = host.ask(request)
    assert isinstance(plan, Plan)
    assert plan.steps == ()


def test_the_floor_stays_shared() -> None:
    host = world(6, policy=floor(3))
    assert isinstance(start(host, "web", 1, exclusive=True), Plan)
    refusal = start(host, "db", 1, exclusive=True)
    assert str(refusal) == "pool cores left to shared guests: wanted 3, available 2"


def test_what_a_deaf_guest_leaves_goes_to_the_exclusive_guest_that_waits_for_it_and_to_nobody_else() -> None:
    host = world(4)
    host.prompt = False
    for name in ("deaf", "other"):
        host.ask(StartGuest(spec=spec(name), owner="ann"))
    host.run(100)
    host.deaf = {"deaf", "other"}
    host.ask(StartGuest(spec=spec("server", exclusive=True), owner="bob"))
    host.run(20_000)
    server = host.scheduler.snapshot(host.now).guests["server"]
    assert Happening.GONE in host.told("deaf") + host.told("other")
    assert host.may_run[server.kept[0]] == "server"
    assert host.scheduler.snapshot(host.now).shared == {2, 3}.difference(server.kept)
    assert host.faults == []

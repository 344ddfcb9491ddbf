"""Moves and resizes of exclusive guests: the steps of each plan, its refusals, and every way in which it can end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.model import EmulatorThreads, NumaWish, SmtWish
from orchestrator.core.orders import Happening
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import MoveGuest, PauseGuest, Plan, Request, ResizeGuest, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.snapshot import Standing
from orchestrator.core.steps import Claim, Launch, Release, Reseat, Restore, Resume, Suspend, Withhold
from orchestrator.errors import ReservedCoreError
from tests.unit.scheduler_flaws import LeavesTooEarly, MovesWithoutLocks
from tests.unit.scheduler_world import MS, World, floor, spec, world


def with_web(cpus: int = 8, vcpus: int = 2, *, shared: int = 0, threads: int = 1, **wishes: object) -> World:
    """A server of so many vCPUs that runs, and so many shared guests of one vCPU around it."""
    host = world(cpus, threads=threads, delays=(3 * MS, 7 * MS))
    for number in range(shared):
        host.ask(StartGuest(spec=spec(f"s{number}"), owner="ann"))
    web = replace(spec("web", vcpus, exclusive=True), **wishes)  # type: ignore[arg-type]  # wishes are of many types
    host.ask(StartGuest(spec=web, owner="bob"))
    host.run(300)
    assert host.faults == []
    return host


def plan(host: World, request: Request) -> Plan:
    outcome = host.ask(request)
    assert isinstance(outcome, Plan), outcome
    return outcome


def reasons(host: World, request: Request) -> list[str]:
    outcome = host.ask(request)
    assert isinstance(outcome, Refusal)
    return [str(reason) for reason in outcome.reasons]


def kept(host: World, guest: str = "web") -> tuple[int, ...]:
    return host.scheduler.snapshot(host.now).guests[guest].kept


def standing(host: World, guest: str = "web") -> Standing:
    return host.scheduler.snapshot(host.now).guests[guest].standing


def test_a_move_claims_the_new_cores_first_and_gives_the_old_ones_back_last() -> None:
    host = with_web()
    steps = plan(host, MoveGuest("web", (3, 4))).steps
    target = next(step.do.placement for step in steps if isinstance(step.do, Reseat))
    assert [step.do for step in steps] == [
        Withhold((4,)),
        Claim("web", (4,)),
        Suspend("web"),
        Reseat("web", target),
        Release("web", (2,)),
        Restore((2,)),
        Resume("web"),
    ]
    assert [type(step.undo) for step in steps] == [Restore, Release, Resume, Reseat, Claim, Withhold, Suspend]
    assert (target.vcpus, target.emulator, target.held) == ((3, 4), (3, 4), (3, 4))


def test_a_moved_guest_is_stopped_meanwhile_and_others_get_its_old_cores() -> None:
    host = with_web(shared=6)
    plan(host, MoveGuest("web", (6, 7)))
    before = len(host.log)
    host.run(1000)
    mine = [order for _, order in host.log[before - 2 :] if order.guest == "web"]
    assert [type(order) for order in mine] == [Halt, Reseat, Continue]
    assert host.turns("web") == [(2, 3), (6, 7)]
    assert kept(host) == (6, 7)
    assert host.locked("web") == {6, 7}
    assert {core for n in range(6) for turn in host.turns(f"s{n}")[-3:] for core in turn} == {2, 3, 4, 5}
    assert host.faults == []


def test_a_paused_guest_is_moved_and_stays_paused() -> None:
    host = with_web()
    host.ask(PauseGuest("web"))
    host.run(50)
    plan(host, MoveGuest("web", (4, 5)))
    host.run(50)
    assert standing(host) is Standing.PAUSED
    assert len(host.turns("web")) == 1
    host.ask(ResumeGuest("web"))
    host.run(50)
    assert host.turns("web") == [(2, 3), (4, 5)]
    assert host.faults == []


def test_who_is_there_already_or_has_no_better_place_stays() -> None:
    host = with_web()
    assert plan(host, MoveGuest("web", (2, 3))).steps == ()
    assert plan(host, MoveGuest("web")).steps == ()


def test_a_guest_on_two_nodes_goes_where_one_has_room() -> None:
    host = world(8, nodes=2)
    for name, vcpus in (("a", 1), ("b", 4), ("c", 1)):
        host.ask(StartGuest(spec=spec(name, vcpus, exclusive=True), owner="ann"))
    host.run(100)
    assert kept(host, "b") == (4, 5, 6, 7)
    host.ask(StopGuest("b"))
    host.run(100)
    host.ask(MoveGuest("a", (4,)))
    host.ask(StartGuest(spec=spec("two", 2, exclusive=True), owner="ann"))
    host.run(100)
    assert kept(host, "a") == (4,)
    plan(host, MoveGuest("a"))  # beside c it leaves more room in one piece
    host.run(100)
    assert kept(host, "a") == (2,) or kept(host, "a") == (3,)
    assert host.faults == []


def test_every_reason_against_a_move_is_named() -> None:
    host = with_web(cpus=8, shared=1)
    host.ask(StartGuest(spec=spec("db", 1, exclusive=True), owner="ann"))
    host.ask(StartGuest(spec=spec("wide", 3), owner="ann"))
    host.run(100)
    assert reasons(host, MoveGuest("web", (4, 5))) == [
        "free pool cores: wanted 4-5, available db keeps 4",
        "pool cores left to the widest waiting gang meanwhile: wanted 3, available 2",
    ]
    assert reasons(host, MoveGuest("web", (5, 6))) == [
        "pool cores left to the widest waiting gang meanwhile: wanted 3, available 1"
    ]
    assert reasons(host, MoveGuest("web", (5,)))[0] == (
        "cores for its threads: wanted 2, available 1 that it can use, 5"
    )
    assert reasons(host, MoveGuest("web", (5, 6, 7)))[0] == (
        "cores for its threads: wanted 2, available 3 that it can use, 5-7"
    )
    assert reasons(host, MoveGuest("s0", (5,))) == [
        "exclusive guest: wanted mode = exclusive, available shared: its turns may be anywhere in the shared pool"
    ]
    with pytest.raises(ReservedCoreError):
        host.ask(MoveGuest("web", (0, 1)))
    assert host.faults == []


def test_the_floor_holds_while_both_places_are_the_guests() -> None:
    host = world(8, policy=floor(3))
    host.ask(StartGuest(spec=spec("web", 2, exclusive=True), owner="bob"))
    host.run(50)
    assert reasons(host, MoveGuest("web", (4, 5))) == [
        "pool cores left to shared guests meanwhile: wanted 3, available 2"
    ]
    plan(host, MoveGuest("web", (3, 4)))
    host.run(50)
    assert kept(host) == (3, 4)


def test_siblings_go_with_their_core_and_wishes_hold() -> None:
    host = with_web(cpus=12, threads=2, vcpus=1, smt=SmtWish.ISOLATE)
    plan(host, MoveGuest("web", (6,)))
    host.run(50)
    placement = host.scheduler.snapshot(host.now).guests["web"].placement
    assert (placement.vcpus, placement.held, kept(host)) == ((6,), (6, 7), (6, 7))
    plan(host, ResizeGuest("web", 2))
    host.run(50)
    placement = host.scheduler.snapshot(host.now).guests["web"].placement
    assert (placement.vcpus, placement.held) == ((6, 2), (2, 3, 6, 7))


def test_an_isolated_emulator_keeps_its_core_when_vcpus_come_and_go() -> None:
    host = with_web(cpus=10, emulator=EmulatorThreads.ISOLATE)
    plan(host, ResizeGuest("web", 4))
    host.run(50)
    placement = host.scheduler.snapshot(host.now).guests["web"].placement
    assert (placement.vcpus, placement.emulator) == ((2, 3, 5, 6), (4,))
    plan(host, ResizeGuest("web", 2))
    host.run(50)
    assert kept(host) == (2, 3, 4)


def test_a_guest_grows_and_shrinks_while_it_runs() -> None:
    host = with_web(shared=6)
    assert [type(step.do) for step in plan(host, ResizeGuest("web", 4)).steps] == [Withhold, Claim, Reseat]
    host.run(300)
    assert (kept(host), host.locked("web")) == ((2, 3, 4, 5), {2, 3, 4, 5})
    assert [type(step.do) for step in plan(host, ResizeGuest("web", 3)).steps] == [Reseat, Release, Restore]
    host.run(300)
    assert (kept(host), host.locked("web")) == ((2, 3, 4), {2, 3, 4})
    assert len(host.turns("web")) == 1
    assert host.faults == []


def test_idle_siblings_of_its_own_come_first() -> None:
    host = with_web(cpus=8, threads=2, vcpus=1)
    assert kept(host) == (2, 3)
    assert [type(step.do) for step in plan(host, ResizeGuest("web", 2)).steps] == [Reseat]


def test_every_reason_against_a_resize_is_named() -> None:
    host = with_web(cpus=6, shared=1, vcpus=2, max_vcpus=4)
    assert reasons(host, ResizeGuest("web", 5)) == ["vCPUs: wanted 5, available 2 to 4"]
    assert reasons(host, ResizeGuest("web", 1)) == ["vCPUs: wanted 1, available 2 to 4"]
    assert reasons(host, ResizeGuest("web", 4)) == [
        "pool cores left to the widest waiting gang meanwhile: wanted 1, available 0"
    ]
    assert len(reasons(host, ResizeGuest("s0", 2))) == 2
    host.ask(PauseGuest("web"))
    host.run(50)
    assert reasons(host, ResizeGuest("web", 3)) == [
        "running guest: wanted its help with a processor that comes or goes, available it is paused"
    ]
    fixed = with_web(max_vcpus=None)
    assert reasons(fixed, ResizeGuest("web", 3)) == ["vCPUs: wanted 3, available 2; its definition has no max_vcpus"]


def test_growing_says_if_there_are_too_few_cores_or_none_in_its_node() -> None:
    host = with_web(cpus=5, vcpus=2, max_vcpus=4)
    assert reasons(host, ResizeGuest("web", 4)) == ["free pool cores: wanted 2, available 1"]
    strict = world(8, nodes=2)
    web = replace(spec("web", 2, exclusive=True), numa=NumaWish.STRICT)
    strict.ask(StartGuest(spec=web, owner="bob"))
    strict.run(50)
    assert kept(strict) == (2, 3)
    assert reasons(strict, ResizeGuest("web", 3)) == ["free cores in its NUMA node: wanted 1, available 0"]
    assert reasons(strict, MoveGuest("web", (3, 4))) == [
        "cores in one NUMA node: wanted numa = strict, available nodes 0-1"
    ]


@pytest.mark.parametrize("request_", [MoveGuest("web", (5, 6)), ResizeGuest("web", 4), ResizeGuest("web", 2)])
def test_what_fails_is_taken_back_and_what_is_not_known_keeps_both_places(request_: Request) -> None:
    for vague in (False, True):
        host = with_web(shared=4, vcpus=2, max_vcpus=4)
        if request_ == ResizeGuest("web", 2):
            host.ask(ResizeGuest("web", 3))
            host.run(100)
        before = kept(host)
        (host.vague if vague else host.unlucky).add("web")
        target = next(s.do.placement for s in plan(host, request_).steps if isinstance(s.do, Reseat))
        host.run(300)
        assert Happening.UNDONE in host.told("web")
        assert standing(host) is Standing.ACTIVE
        assert "web" in host.may_run.values()
        wanted = set(before) | set(target.held) if vague else set(before)
        assert (set(kept(host)), host.locked("web")) == (wanted, wanted)
        host.vague.clear()
        host.unlucky.clear()
        host.ask(request_)  # once more, and now it can be done
        host.run(300)
        assert kept(host) == target.held
        assert host.locked("web") == set(target.held)
        assert host.faults == []


ENDINGS: dict[str, Callable[[World], object]] = {
    "crash": lambda host: host.crash("web"),
    "withdraw": lambda host: host.scheduler.withdraw("web", "it panicked", host.now),
    "deaf": lambda host: host.deaf.add("web"),
    "crash of who is in the way": lambda host: host.crash("s1"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("request_", [MoveGuest("web", (5, 6)), ResizeGuest("web", 4), ResizeGuest("web", 2)])
def test_whatever_happens_at_any_moment_of_a_move_no_core_is_lost(request_: Request, ending: str) -> None:
    for moment in range(16):
        host = with_web(shared=6, vcpus=2, max_vcpus=4)
        if request_ == ResizeGuest("web", 2):
            host.ask(ResizeGuest("web", 4))
            host.run(100)
        host.ask(request_)
        host.run(moment)
        ENDINGS[ending](host)
        host.run(200)
        if ending == "withdraw":
            assert host.locked("web") == set(kept(host)) == set(placement_of(host))
        host.deaf.clear()
        host.run(8000)  # past the confirmation and the grace
        host.crash("web")
        host.run(2000)
        assert host.faults == []
        assert host.scheduler.snapshot(host.now).shared == {2, 3, 4, 5, 6, 7}
        assert not host.locked("web")


def placement_of(host: World) -> tuple[int, ...]:
    return host.scheduler.snapshot(host.now).guests["web"].placement.held


@pytest.mark.parametrize(("kind", "fault"), [(MovesWithoutLocks, "locks first"), (LeavesTooEarly, "locks")])
def test_a_flaw_is_noticed(kind: type[Scheduler], fault: str) -> None:
    host = world(8, delays=(3 * MS,), kind=kind)
    host.ask(StartGuest(spec=spec("web", 2, exclusive=True), owner="bob"))
    for number in range(6):
        host.ask(StartGuest(spec=spec(f"s{number}"), owner="ann"))
    host.run(300)
    host.ask(MoveGuest("web", (5, 6)))
    host.run(300)
    assert any(found.startswith(fault) for found in host.faults)


def test_a_guest_that_grew_starts_anew_with_its_definitions_vcpus() -> None:
    host = with_web(shared=1)
    host.ask(ResizeGuest("web", 3))
    host.run(100)
    host.ask(StopGuest("web"))
    host.run(100)
    host.ask(StartGuest(spec=spec("web", 2, exclusive=True), owner="bob"))
    host.run(100)
    launches = [order.placement.vcpus for _, order in host.log if isinstance(order, Launch) and order.guest == "web"]
    assert launches == [(2, 3), (2, 3)]

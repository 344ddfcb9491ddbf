"""Deciding requests: the steps of each plan, what takes them back, and every reason of a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core.model import EmulatorThreads, GuestSpec, NumaWish, SmtWish
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import PauseGuest, Plan, ResumeGuest, StartGuest, StopGuest, decide
from orchestrator.core.policy import CorePolicy, Policy
from orchestrator.core.snapshot import Known, Snapshot, Standing, gang_width, unit_groups
from orchestrator.core.steps import Discharge, End, Enlist, Forget, Launch, Lock, Restore, Resume, Unlock, Withhold
from orchestrator.core.topology import Topology
from orchestrator.core.units import Units
from orchestrator.errors import UsageError
from tests.unit.scheduler_world import host, spec

DEFAULT = Policy()


def snapshot(topology: Topology, guests: Mapping[str, Known] | None = None, policy: Policy = DEFAULT) -> Snapshot:
    units = Units(unit_groups(topology, split_cores=policy.cores.split_cores))
    guests = guests or {}
    gangs: dict[int, int] = {}
    for known in guests.values():
        if known.takes_turns:
            need = units.need(gang_width(known.spec, units))
            gangs[need] = gangs.get(need, 0) + 1
    kept = {core for known in guests.values() for core in known.kept}
    return Snapshot(
        now=0,
        topology=topology,
        policy=policy,
        pool=topology.pool,
        units=units,
        shared=topology.pool.cores - kept,
        usable=units.within(topology.pool.cores - kept),
        guests=guests,
        gangs=gangs,
    )


def known(guest: GuestSpec, topology: Topology, standing: Standing = Standing.ACTIVE, owner: str = "ann") -> Known:
    """A guest as it would be placed on the idle host."""
    plan = decide(snapshot(topology), StartGuest(spec=guest, owner=owner))
    assert isinstance(plan, Plan)
    assert plan.placement is not None
    entry = Known(spec=guest, owner=owner, priority=0, standing=standing, placement=plan.placement)
    return replace(entry, kept=plan.placement.held) if entry.exclusive else entry


def asked(where: Snapshot, guest: GuestSpec) -> Plan | Refusal:
    return decide(where, StartGuest(spec=guest, owner="bob"))


def reasons(outcome: Plan | Refusal) -> list[str]:
    assert isinstance(outcome, Refusal)
    return [str(reason) for reason in outcome.reasons]


def test_an_exclusive_start_withholds_locks_launches_and_resumes_and_can_be_taken_back_from_anywhere() -> None:
    plan = asked(snapshot(host(6)), spec("web", 2, exclusive=True))
    assert isinstance(plan, Plan)
    steps = [step.do for step in plan.steps]
    assert plan.placement is not None
    assert steps == [
        Withhold((2, 3)),
        Lock("web", (2, 3)),
        Launch("web", plan.placement),
        Resume("web"),
    ]
    assert plan.locks == (Lock("web", (2, 3)),)
    assert plan.acts == (Launch("web", plan.placement), Resume("web"))
    assert plan.undo(3) == (End("web"), Unlock("web"), Restore((2, 3)))
    for fewer, more in pairwise(range(len(steps) + 1)):
        assert plan.undo(more)[-len(plan.undo(fewer)) or len(plan.undo(more)) :] == plan.undo(fewer)
    assert len(plan.undo()) == len(steps)


def test_a_shared_start_is_launched_and_enlisted_and_takes_no_lock_yet() -> None:
    plan = asked(snapshot(host(6)), spec("a", 2))
    assert isinstance(plan, Plan)
    assert [type(step.do) for step in plan.steps] == [Launch, Enlist]
    assert plan.locks == ()


def test_shared_guests_are_launched_apart_while_there_is_room() -> None:
    topology = host(6)
    guests: dict[str, Known] = {}
    homes = []
    for name in ("a", "b", "c"):
        plan = asked(snapshot(topology, guests), spec(name, 2))
        assert isinstance(plan, Plan)
        assert plan.placement is not None
        homes.append(plan.placement.held)
        guests[name] = known(spec(name, 2), topology)
    assert homes == [(2, 3), (4, 5), (2, 3)]


def test_a_stop_ends_first_and_gives_back_what_the_guest_kept() -> None:
    topology = host(6)
    guests = {"web": known(spec("web", exclusive=True), topology), "a": known(spec("a"), topology)}
    exclusive, shared = (decide(snapshot(topology, guests), StopGuest(name)) for name in ("web", "a"))
    assert isinstance(exclusive, Plan)
    assert [step.do for step in exclusive.steps] == [End("web"), Unlock("web"), Restore((2,)), Forget("web")]
    assert isinstance(shared, Plan)
    assert [step.do for step in shared.steps] == [End("a"), Unlock("a"), Forget("a")]


def test_a_pause_is_undone_by_going_on() -> None:
    topology = host(6)
    plan = decide(snapshot(topology, {"a": known(spec("a"), topology)}), PauseGuest("a"))
    assert isinstance(plan, Plan)
    assert [step.do for step in plan.steps] == [Discharge("a")]
    assert plan.undo() == (Enlist("a"),)


def test_a_name_in_use_is_one_reason_among_others() -> None:
    topology = host(6)
    where = snapshot(topology, {"a": known(spec("a"), topology)})
    assert reasons(asked(where, spec("a", 5))) == [
        "guest name: wanted a, not in use, available ann has a guest of this name, active",
        "shared pool cores: wanted 5, available 4",
    ]


def test_an_exclusive_guest_leaves_the_floor_and_the_widest_gang() -> None:
    topology = host(8)
    policy = Policy(cores=CorePolicy(shared_floor=5))
    where = snapshot(topology, {"wide": known(spec("wide", 6), topology)}, policy)
    assert reasons(asked(where, spec("web", 2, exclusive=True))) == [
        "pool cores left to shared guests: wanted 5, available 4",
        "pool cores left to the widest waiting gang: wanted 6, available 4",
    ]


@pytest.mark.parametrize("standing", [Standing.STARTING, Standing.RESUMING, Standing.ACTIVE])
def test_a_gang_that_is_about_to_take_turns_counts(standing: Standing) -> None:
    topology = host(6)
    where = snapshot(topology, {"wide": known(spec("wide", 4), topology, standing)})
    assert isinstance(asked(where, spec("web", exclusive=True)), Refusal)


def test_a_paused_gang_does_not_count_and_may_be_too_wide_when_it_is_resumed() -> None:
    topology = host(6)
    guests = {"wide": known(spec("wide", 4), topology, Standing.PAUSED)}
    plan = asked(snapshot(topology, guests), spec("web", exclusive=True))
    assert isinstance(plan, Plan)
    guests["web"] = known(spec("web", exclusive=True), topology)
    outcome = decide(snapshot(topology, guests), ResumeGuest("wide"))
    assert reasons(outcome) == ["shared pool cores: wanted 4, available 3 (web keeps 2)"]
    del guests["web"]
    assert isinstance(decide(snapshot(topology, guests), ResumeGuest("wide")), Plan)


def test_with_smt_units_are_physical_cores_and_isolated_threads_have_one_each() -> None:
    where = snapshot(host(8, threads=2))
    outcome = asked(where, replace(spec("a", 2), smt=SmtWish.ISOLATE))
    assert isinstance(outcome, Plan)
    assert outcome.placement is not None
    assert (outcome.placement.vcpus, outcome.placement.held) == ((2, 4), (2, 3, 4, 5))
    assert reasons(asked(where, replace(spec("b", 4), smt=SmtWish.ISOLATE))) == [
        "physical cores of the shared pool: wanted 4, available 3"
    ]


def test_what_only_an_exclusive_guest_can_have_is_refused_to_a_shared_one() -> None:
    topology = host(6)
    assert reasons(asked(snapshot(topology), replace(spec("a"), smt=SmtWish.REQUIRE))) == [
        "cores with an SMT sibling: wanted 1, available 0"
    ]


def test_an_isolated_emulator_takes_one_more_core_of_each_turn() -> None:
    where = snapshot(host(6))
    outcome = asked(where, replace(spec("a", 3), emulator=EmulatorThreads.ISOLATE))
    assert isinstance(outcome, Plan)
    assert outcome.placement is not None
    assert (outcome.placement.vcpus, outcome.placement.emulator) == ((2, 3, 4), (5,))
    assert isinstance(asked(where, replace(spec("b", 4), emulator=EmulatorThreads.ISOLATE)), Refusal)


def test_strict_numa_is_no_matter_on_one_node() -> None:
    assert isinstance(asked(snapshot(host(6)), replace(spec("a"), numa=NumaWish.STRICT)), Plan)


def test_a_guest_that_is_not_there_is_a_mistake_of_the_asker() -> None:
    with pytest.raises(UsageError, match="ghost: there is no such guest"):
        decide(snapshot(host(6)), StopGuest("ghost"))

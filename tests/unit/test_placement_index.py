"""The index, the floor and the refusals, on hosts that are small enough to follow by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.model import EmulatorThreads, NumaWish, SmtWish
from orchestrator.core.placement import Placement, Reason, Refusal, SharedFloor, assign, place_in
from orchestrator.core.poolindex import Fit, PoolIndex
from orchestrator.core.topology import Topology
from orchestrator.errors import RefusedError, ReservedCoreError, UsageError
from tests.unit.placement_oracle import Request, host


def plain(cores: int = 8, per_node: int = 8) -> Topology:
    """Return a host without SMT; cores 0 and 1 are not in its pool."""
    return host({(core,): core // per_node for core in range(cores)})


def smt(cores: int = 6, per_node: int = 6) -> Topology:
    """Return a host with two threads a physical core, n and n + cores; the pool begins with core 2."""
    return host({(core, core + cores): core // per_node for core in range(cores)})


def put(index: PoolIndex, request: Request, floor: SharedFloor | None = None) -> Placement:
    """Place a guest and take its cores."""
    placement = place_in(index, request.spec, floor or SharedFloor())
    assert isinstance(placement, Placement), str(placement)
    index.take(placement.held)
    return placement


def refused(index: PoolIndex, request: Request, floor: SharedFloor | None = None) -> tuple[Reason, ...]:
    outcome = place_in(index, request.spec, floor or SharedFloor())
    assert isinstance(outcome, Refusal)
    return outcome.reasons


def test_a_guest_gets_the_lowest_free_cores_and_leaves_them_as_they_were() -> None:
    index = PoolIndex(plain())
    first, second = put(index, Request(2)), put(index, Request(3))
    assert (first.vcpus, second.vcpus) == ((2, 3), (4, 5, 6))
    assert first.emulator == first.held == (2, 3)
    assert index.free == {7}
    index.release(first.held)
    assert put(index, Request(1)).vcpus == (2,)


def test_the_node_with_the_least_room_that_is_enough_comes_first() -> None:
    index = PoolIndex(plain(cores=12, per_node=4))  # two pool cores in node 0, four in each of the others
    assert [put(index, Request(2)).nodes for _ in range(5)] == [(0,), (1,), (1,), (2,), (2,)]
    assert len(index) == 0


def test_a_guest_too_wide_for_a_node_fills_the_roomiest_and_its_rest_goes_where_it_fits_best() -> None:
    index = PoolIndex(plain(cores=12, per_node=4))
    placement = put(index, Request(6))
    assert placement.vcpus == (4, 5, 6, 7, 2, 3)
    assert placement.nodes == (0, 1)


def test_a_guest_that_insists_on_one_node_is_refused_rather_than_spread() -> None:
    index = PoolIndex(plain(cores=12, per_node=4))
    strict = Request(6, numa=NumaWish.STRICT)
    assert refused(index, strict) == (Reason("free cores in one NUMA node", "6", "4"),)
    assert put(index, replace(strict, vcpus=4)).nodes == (1,)


def test_with_smt_a_guest_has_whole_physical_cores_and_what_it_leaves_of_one_stays_idle() -> None:
    index = PoolIndex(smt())
    placement = put(index, Request(3))
    assert placement.vcpus == (2, 8, 3)
    assert placement.held == (2, 3, 8, 9)
    assert put(index, Request(1)).held == (4, 10)
    assert refused(index, Request(3)) == (Reason("free pool cores", "3", "2"),)


def test_a_physical_core_of_which_a_thread_is_held_or_reserved_is_not_whole() -> None:
    topology = host({(0, 1): 0, (2, 3): 0, (4, 5): 0, (6, 7): 0}, reserved=frozenset({3}))
    index = PoolIndex(topology, {2, 4, 5, 6})
    assert refused(index, Request(3)) == (Reason("free physical cores, whole", "3", "2"),)
    assert put(index, Request(2)).held == (4, 5)


def test_if_the_policy_lets_physical_cores_be_split_the_rest_of_one_is_the_next_guests() -> None:
    index = PoolIndex(smt(), split_cores=True)
    assert put(index, Request(1)).held == (2,)
    assert put(index, Request(2)).held == (3, 9)
    assert put(index, Request(1)).held == (8,)
    assert put(index, Request(3)).vcpus == (4, 10, 5)
    assert refused(index, Request(1, SmtWish.ISOLATE)) == (Reason("free physical cores, alone", "1", "0"),)


def test_a_split_core_does_not_weaken_the_wish_for_siblings_or_for_none() -> None:
    index = PoolIndex(smt(), split_cores=True)
    put(index, Request(1))
    assert put(index, Request(1, SmtWish.ISOLATE)).held == (3, 9)
    assert put(index, Request(1, SmtWish.REQUIRE)).held == (4, 10)


def test_wishes_for_siblings_meet_processors_of_mixed_cores() -> None:
    hybrid = host({(0, 1): 0, (2, 3): 0, (4, 5): 0, (6,): 0, (7,): 0})
    for request, vcpus, held in (
        (Request(1), (6,), (6,)),
        (Request(3), (2, 3, 6), (2, 3, 6)),
        (Request(3, SmtWish.ISOLATE), (6, 7, 2), (2, 3, 6, 7)),
        (Request(1, SmtWish.REQUIRE), (2,), (2, 3)),
    ):
        placement = put(PoolIndex(hybrid), request)
        assert (placement.vcpus, placement.held) == (vcpus, held)
    assert refused(PoolIndex(hybrid), Request(5, SmtWish.REQUIRE))[0].available == "4"


def test_one_wide_core_is_better_than_a_narrow_one_and_most_of_a_wide_one() -> None:
    power = host({(0,): 0, (1,): 0, (2, 3): 0, (4, 5, 6, 7): 0})
    assert put(PoolIndex(power), Request(3)).held == (4, 5, 6, 7)
    assert put(PoolIndex(power), Request(5)).vcpus == (4, 5, 6, 7, 2)


def test_isolated_emulator_threads_take_one_more_core() -> None:
    placement = put(PoolIndex(plain()), Request(2, emulator=EmulatorThreads.ISOLATE))
    assert (placement.vcpus, placement.emulator, placement.held) == ((2, 3), (4,), (2, 3, 4))


def test_the_floor_and_the_widest_gang_each_refuse_by_name() -> None:
    index = PoolIndex(plain())  # six pool cores
    floor = SharedFloor(policy=3, widest_gang=4)
    assert refused(index, Request(4), floor) == (
        Reason("pool cores left to shared guests", "3", "2"),
        Reason("pool cores left to the widest waiting gang", "4", "2"),
    )
    assert refused(index, Request(3), floor) == (Reason("pool cores left to the widest waiting gang", "4", "3"),)
    put(index, Request(2), floor)
    assert refused(index, Request(1), floor) == (Reason("pool cores left to the widest waiting gang", "4", "3"),)


def test_the_floor_counts_idle_siblings_as_gone() -> None:
    index = PoolIndex(smt())  # eight pool cores
    assert refused(index, Request(1), SharedFloor(policy=7)) == (Reason("pool cores left to shared guests", "7", "6"),)
    assert put(index, Request(1), SharedFloor(policy=6)).held == (2, 8)


def test_a_refusal_lists_all_that_refuses() -> None:
    index = PoolIndex(smt(cores=8, per_node=4), {2, 3, 4, 5, 6, 7, 10, 12, 13})
    reasons = refused(index, Request(10, numa=NumaWish.STRICT), SharedFloor(policy=2, widest_gang=1))
    assert reasons == (
        Reason("free pool cores", "10", "9"),
        Reason("free physical cores, whole", "10", "6"),
        Reason("free cores in one NUMA node", "10", "4"),
        Reason("pool cores left to shared guests", "2", "0"),
        Reason("pool cores left to the widest waiting gang", "1", "0"),
    )
    assert str(Refusal(reasons[:2])) == (
        "free pool cores: wanted 10, available 9; free physical cores, whole: wanted 10, available 6"
    )


def test_cores_are_taken_and_released_all_or_none() -> None:
    index = PoolIndex(plain())
    index.take([3, 4])
    with pytest.raises(RefusedError, match="cores 0,4 cannot be taken: they are not free"):
        index.take([0, 4, 5])
    with pytest.raises(RefusedError, match="cores 1,5 cannot be released: nobody holds them"):
        index.release([1, 4, 5])
    assert index.free == {2, 5, 6, 7}
    assert index.fit(4, SmtWish.PREFER, one_node=True) == Fit((2, 5, 6, 7), (2, 5, 6, 7), ())


def test_no_index_leads_to_a_placement_on_a_core_outside_the_pool() -> None:
    class Loose(PoolIndex):
        def fit(self, count: int, wish: SmtWish, *, one_node: bool) -> Fit | None:
            fit = super().fit(count, wish, one_node=one_node)
            return fit and fit._replace(used=(1, *fit.used[1:]))

    index = Loose(plain(), {0, 1, 2, 3})
    assert index.free == {2, 3}
    with pytest.raises(ReservedCoreError, match="core 1"):
        place_in(index, Request(2).spec)


def test_siblings_on_one_sides_word_are_one_physical_core() -> None:
    topology = smt()
    cpus = tuple(replace(cpu, siblings=(cpu.id,)) if cpu.id == 8 else cpu for cpu in topology.cpus)
    assert put(PoolIndex(replace(topology, cpus=cpus)), Request(1)).held == (2, 8)


def test_an_empty_pool_refuses() -> None:
    index = PoolIndex(plain(cores=2))
    assert (len(index), index.room(SmtWish.PREFER), index.widest(SmtWish.PREFER)) == (0, 0, 0)
    assert refused(index, Request(1)) == (Reason("free pool cores", "1", "0"),)


def test_assigned_cores_are_checked_before_anything_is_asked_of_them() -> None:
    topology = plain(cores=12, per_node=4)
    with pytest.raises(ReservedCoreError, match=r"core 99 \(absent\)"):
        assign(Request(2).spec, [4, 99], topology)
    with pytest.raises(UsageError, match="guest: 1 cores do not fit; it takes 2"):
        assign(Request(2).spec, [4], topology)
    assert assign(Request(2).spec, [8, 4], topology).nodes == (1, 2)

"""No placement names a core outside the pool; what `place` and `assign` choose, and what they say when they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import EmulatorThreads, GuestSpec, NumaWish, SmtWish
from orchestrator.core.placement import Placement, Refusal, assign, place
from orchestrator.core.pool import Pool
from orchestrator.core.topology import Cpu, Node, Topology, assign_roles
from orchestrator.errors import ReservedCoreError, UsageError
from tests.golden.cases import domain


def host(*nodes: int, threads: int = 1, reserved: tuple[int, ...] = ()) -> Topology:
    """Return a host with this many physical cores on each node; SMT siblings are neighbours: 0 and 1, 2 and 3 ..."""
    siblings: dict[int, tuple[int, ...]] = {}
    home: dict[int, int] = {}
    for node, count in enumerate(nodes):
        for _ in range(count):
            core = tuple(range(len(siblings), len(siblings) + threads))
            siblings |= dict.fromkeys(core, core)
            home |= dict.fromkeys(core, node)
    roles = assign_roles({cpu: frozenset(core) for cpu, core in siblings.items()}, reserved)
    cpus = tuple(Cpu(cpu, core[0], home[cpu], 0, home[cpu], core, *roles[cpu]) for cpu, core in siblings.items())
    described = tuple(
        Node(node, tuple(cpu for cpu in home if home[cpu] == node), None, ()) for node in range(len(nodes))
    )
    return Topology(cpus, described, (), (), (), (), ())


def spec(vcpus: int = 1, **wishes: Any) -> GuestSpec:
    return domain(vcpus=vcpus, **wishes).spec


def placed(guest: GuestSpec, topology: Topology, free: frozenset[int] | None = None) -> Placement:
    outcome = place(guest, topology.pool.cores if free is None else free, topology)
    assert isinstance(outcome, Placement), outcome
    return outcome


def refused(guest: GuestSpec, topology: Topology, free: frozenset[int] | None = None) -> set[tuple[str, str]]:
    """Return what was wanted and what there was, for each rule that refused."""
    outcome = place(guest, topology.pool.cores if free is None else free, topology)
    assert isinstance(outcome, Refusal), outcome
    assert str(outcome) == "; ".join(f"{r.rule}: wanted {r.wanted}, available {r.available}" for r in outcome.reasons)
    return {(reason.wanted, reason.available) for reason in outcome.reasons}


core_sets = st.frozensets(st.integers(0, 12), min_size=1)


@settings(deadline=None)
@given(core_sets, core_sets, core_sets, st.frozensets(st.integers(2, 12)))
def test_no_placement_names_a_core_outside_the_pool(
    vcpus: frozenset[int], emulator: frozenset[int], held: frozenset[int], pool: frozenset[int]
) -> None:
    def build() -> Placement:
        return Placement(pool=Pool(pool), vcpus=tuple(vcpus), emulator=tuple(emulator), held=tuple(held))

    outside = (vcpus | emulator | held) - pool
    if outside:
        with pytest.raises(ReservedCoreError) as caught:
            build()
        assert caught.value.cores == tuple(sorted(outside))
    else:
        assert build().held == tuple(sorted(vcpus | emulator | held))


@pytest.mark.parametrize("core", [0, 1])
def test_the_first_two_cores_are_in_no_placement(core: int) -> None:
    with pytest.raises(ReservedCoreError, match=f"not for guests: core {core}"):
        Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(core,))


@pytest.mark.parametrize(
    ("vcpus", "emulator", "why"),
    [
        ((), (2,), "needs a core for every vCPU"),
        ((2,), (), "one for the emulator threads"),
        ((2, 3, 2), (2,), "two vCPUs of one guest cannot share a core"),
    ],
)
def test_a_placement_has_a_core_of_its_own_for_each_vcpu(
    vcpus: tuple[int, ...], emulator: tuple[int, ...], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        Placement(pool=Pool(frozenset({2, 3})), vcpus=vcpus, emulator=emulator)


def test_on_a_plain_host_the_lowest_free_cores_are_taken() -> None:
    found = placed(spec(2), host(8), frozenset({3, 5, 6}))
    assert (found.vcpus, found.emulator, found.held, found.nodes) == ((3, 5), (3, 5), (3, 5), ())


def test_an_isolated_emulator_has_one_more_core() -> None:
    found = placed(spec(2, emulator=EmulatorThreads.ISOLATE), host(8))
    assert (found.vcpus, found.emulator, found.held) == ((2, 3), (4,), (2, 3, 4))


@pytest.mark.parametrize(("vcpus", "node", "cores"), [(2, 0, (2, 3)), (3, 2, (10, 11, 12)), (5, 1, (4, 5, 6, 7, 8))])
def test_the_node_that_fits_with_least_room_left_is_taken(vcpus: int, node: int, cores: tuple[int, ...]) -> None:
    found = placed(spec(vcpus), host(4, 6, 3))
    assert (found.nodes, found.vcpus) == ((node,), cores)


def test_a_guest_that_no_node_can_hold_is_spread_unless_it_insists() -> None:
    topology = host(4, 6)
    assert placed(spec(7), topology).nodes == (0, 1)
    assert placed(spec(6, numa=NumaWish.STRICT), topology).nodes == (1,)
    assert refused(spec(7, numa=NumaWish.STRICT), topology) == {("7", "6")}


def test_whole_physical_cores_are_held() -> None:
    found = placed(spec(3), host(5, threads=2))
    assert (found.vcpus, found.held) == ((2, 3, 4), (2, 3, 4, 5))


def test_isolated_threads_have_a_physical_core_each() -> None:
    found = placed(spec(2, smt=SmtWish.ISOLATE), host(5, threads=2))
    assert (found.vcpus, found.held) == ((2, 4), (2, 3, 4, 5))
    assert refused(spec(5, smt=SmtWish.ISOLATE), host(5, threads=2)) == {("5", "4")}


def test_a_guest_that_requires_siblings_gets_them_or_is_refused() -> None:
    assert placed(spec(2, smt=SmtWish.REQUIRE), host(4, threads=2)).vcpus == (2, 3)
    assert refused(spec(2, smt=SmtWish.REQUIRE), host(8)) == {("2", "0")}


def test_a_physical_core_that_is_partly_taken_or_reserved_is_left_alone() -> None:
    topology = host(5, threads=2, reserved=(4,))
    assert placed(spec(2), topology, frozenset({3, 5, 6, 7})).vcpus == (6, 7)
    assert refused(spec(2), topology, frozenset({3, 5, 6})) == {("2", "0")}


def test_too_few_free_cores_are_counted() -> None:
    assert refused(spec(3), host(8), frozenset({2, 3})) == {("3", "2")}
    assert refused(spec(1), host(2)) == {("1", "0")}


def test_every_rule_that_refuses_is_told() -> None:
    topology = host(4, 4)
    outcome = place(spec(8, numa=NumaWish.STRICT), topology.pool.cores, topology)
    assert str(outcome) == "free pool cores: wanted 8, available 6; free cores in one NUMA node: wanted 8, available 4"


smt_wishes, numa_wishes, emulators = map(st.sampled_from, (SmtWish, NumaWish, EmulatorThreads))
guests = st.builds(spec, st.integers(1, 6), smt=smt_wishes, numa=numa_wishes, emulator=emulators)
hosts = st.builds(
    lambda nodes, threads: host(*nodes, threads=threads),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 3),
)


@settings(deadline=None)
@given(guests, hosts, st.data())
def test_a_guest_is_placed_as_it_wishes_or_could_not_be(
    guest: GuestSpec, topology: Topology, data: st.DataObject
) -> None:
    free = data.draw(st.frozensets(st.sampled_from(sorted(topology.pool.cores or {2})))) & topology.pool.cores
    whole = [core for core in topology.cores if free.issuperset(core)]
    if guest.smt is SmtWish.REQUIRE:
        whole = [core for core in whole if len(core) > 1]
    room = [0 for _ in topology.nodes]
    for core in whole:
        room[topology.cpu(core[0]).node] += 1 if guest.smt is SmtWish.ISOLATE else len(core)
    possible = (max if guest.numa is NumaWish.STRICT else sum)(room) >= guest.cores_needed
    outcome = place(guest, free, topology)
    if isinstance(outcome, Refusal):
        assert not possible
        assert outcome.reasons
        assert all(int(reason.wanted) > int(reason.available) for reason in outcome.reasons)
        return
    assert possible
    used = {*outcome.vcpus, *outcome.emulator}
    assert (len(outcome.vcpus), len(used)) == (guest.vcpus, guest.cores_needed)
    touched = [core for core in whole if used & set(core)]
    assert set(outcome.held) == {cpu for core in touched for cpu in core}
    assert guest.smt is not SmtWish.ISOLATE or len(touched) == guest.cores_needed
    nodes = {topology.cpu(cpu).node for cpu in used}
    assert outcome.nodes == (tuple(sorted(nodes)) if len(topology.nodes) > 1 else ())
    assert len(nodes) == 1 or max(room) < guest.cores_needed


def test_cores_that_were_named_are_given_in_that_order() -> None:
    found = assign(spec(2, emulator=EmulatorThreads.ISOLATE), (7, 3, 5), host(4, 4))
    assert (found.vcpus, found.emulator, found.held, found.nodes) == ((7, 3), (5,), (3, 5, 7), (0, 1))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({}, "guest: 1 cores do not fit; it takes 2: one for each of its 2 vCPUs"),
        (
            {"emulator": EmulatorThreads.ISOLATE},
            "guest: 1 cores do not fit; it takes 3: one for each of its 2 vCPUs "
            "and one for its isolated emulator threads",
        ),
    ],
)
def test_the_number_of_named_cores_must_fit(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        assign(spec(2, **wishes), (2,), host(8))
    assert str(caught.value) == message


@pytest.mark.parametrize("core", [0, 1, 3, 99])
@pytest.mark.parametrize("topology", [host(8, reserved=(3,)), host(4, 4, reserved=(3,))], ids=["one node", "two"])
def test_a_named_core_that_is_not_the_pools_is_refused(core: int, topology: Topology) -> None:
    with pytest.raises(ReservedCoreError, match=f"core {core} "):
        assign(spec(), (core,), topology)

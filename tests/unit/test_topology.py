"""Roles, what follows from them, and the description as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.topology import Cache, Cpu, Node, Role, Topology, assign_roles, describe
from orchestrator.errors import ReservedCoreError

ids = st.integers(0, 40)
sibling_maps = st.dictionaries(ids, st.frozensets(ids, max_size=4), max_size=20)


def singles(*cores: int) -> dict[int, frozenset[int]]:
    return {core: frozenset({core}) for core in cores}


def pairs(half: int) -> dict[int, frozenset[int]]:
    return {core: frozenset({core % half, core % half + half}) for core in range(2 * half)}


def test_without_smt_all_but_the_first_two_are_pool() -> None:
    assert assign_roles(singles(0, 1, 2, 3), ()) == {
        0: (Role.SCHEDULER, "scheduler core"),
        1: (Role.SERVICE, "service core"),
        2: (Role.POOL, ""),
        3: (Role.POOL, ""),
    }


def test_smt_siblings_of_the_first_two_are_reserved() -> None:
    roles = assign_roles(pairs(4), ())
    assert roles[4] == (Role.RESERVED, "SMT sibling of core 0")
    assert roles[5] == (Role.RESERVED, "SMT sibling of core 1")
    assert [core for core, (role, _) in roles.items() if role is Role.POOL] == [2, 3, 6, 7]


def test_with_neighbouring_siblings_the_first_two_share_a_core_and_reserve_no_more() -> None:
    roles = assign_roles({core: frozenset({core & ~1, core | 1}) for core in range(4)}, ())
    assert [role for role, _ in roles.values()] == [Role.SCHEDULER, Role.SERVICE, Role.POOL, Role.POOL]


def test_the_word_of_one_side_makes_siblings() -> None:
    assert assign_roles({0: frozenset({0, 2}), 2: frozenset({2})}, ())[2][0] is Role.RESERVED
    assert assign_roles({0: frozenset({0}), 2: frozenset({0, 2})}, ())[2][0] is Role.RESERVED


def test_a_sibling_of_an_offline_core_0_stays_reserved_and_nobody_takes_its_role() -> None:
    roles = assign_roles({2: frozenset({0, 2}), 3: frozenset({3})}, ())
    assert roles == {2: (Role.RESERVED, "SMT sibling of core 0"), 3: (Role.POOL, "")}


def test_a_policy_reserves_more_and_cannot_change_what_core_0_and_1_are() -> None:
    roles = assign_roles(singles(0, 1, 2, 3), [0, 1, 3, 99])
    assert [role for role, _ in roles.values()] == [Role.SCHEDULER, Role.SERVICE, Role.POOL, Role.RESERVED]
    assert roles[3][1] == "reserved by policy"


@given(sibling_maps, st.frozensets(ids))
@settings(deadline=None)
def test_no_host_and_no_policy_gives_guests_core_0_or_1_or_a_sibling(
    siblings: dict[int, frozenset[int]], reserved: frozenset[int]
) -> None:
    roles = assign_roles(siblings, reserved)
    pool = {core for core, (role, _) in roles.items() if role is Role.POOL}
    assert roles.keys() == siblings.keys()
    assert not pool & ({0, 1} | reserved | siblings.get(0, frozenset()) | siblings.get(1, frozenset()))
    assert all(siblings[core].isdisjoint({0, 1}) for core in pool)
    assert all(bool(reason) == (core not in pool) for core, (_, reason) in roles.items())
    assert pool <= {core for core, (role, _) in assign_roles(siblings, ()).items() if role is Role.POOL}


def machine(siblings: dict[int, frozenset[int]], reserved: tuple[int, ...] = ()) -> Topology:
    """Return a topology of one socket and node in which sibling pairs share a first-level cache."""
    roles = assign_roles(siblings, reserved)
    cpus = tuple(Cpu(cpu, min(shared), 0, 0, 0, tuple(sorted(shared)), *roles[cpu]) for cpu, shared in siblings.items())
    caches = tuple(Cache(1, "Data", 32768, cpu.siblings) for cpu in cpus if cpu.id == cpu.siblings[0])
    return Topology(cpus, (Node(0, tuple(siblings), 1 << 30, ((0, 10),)),), caches, (8, 9), (2,), (3,), ("w",))


def test_pool_and_reserved_part_the_online_cores() -> None:
    topology = machine(pairs(4), reserved=(3,))
    assert topology.pool.cores == {2, 6, 7}
    assert [cpu.id for cpu in topology.reserved] == [0, 1, 3, 4, 5]
    assert topology.smt
    assert topology.cores == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert not machine(singles(0, 1, 2)).smt


def test_the_pool_of_a_topology_knows_why_a_core_is_not_in_it() -> None:
    with pytest.raises(ReservedCoreError) as caught:
        machine(pairs(4), reserved=(3,)).pool.check([0, 1, 3, 4, 8, 10])
    assert str(caught.value) == (
        "not for guests: core 0 (scheduler core), core 1 (service core), core 3 (reserved by policy), "
        "core 4 (SMT sibling of core 0), core 8 (offline), core 10 (absent); the pool is 2,6-7"
    )


def test_a_topology_that_calls_core_0_pool_has_no_pool() -> None:
    forged = Topology((Cpu(0, 0, 0, 0, 0, (0,), Role.POOL, ""),), (), (), (), (), (), ())
    with pytest.raises(ReservedCoreError, match="core 0"):
        _ = forged.pool


def test_a_cpu_is_found_by_its_number_across_holes() -> None:
    topology = machine(singles(0, 2, 5))
    assert [topology.cpu(number).id for number in (0, 2, 5)] == [0, 2, 5]
    for absent in (-1, 1, 6):
        with pytest.raises(KeyError):
            topology.cpu(absent)


def test_the_description_is_complete_and_plain_json() -> None:
    described = describe(machine(pairs(2), reserved=(9,)))
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "cpus": [
            cpu(0, [0, 2], "scheduler", "scheduler core"),
            cpu(1, [1, 3], "service", "service core"),
            cpu(2, [0, 2], "reserved", "SMT sibling of core 0"),
            cpu(3, [1, 3], "reserved", "SMT sibling of core 1"),
        ],
        "pool": [],
        "reserved": [0, 1, 2, 3],
        "offline": [8, 9],
        "isolated": [2],
        "nohz_full": [3],
        "smt": True,
        "counts": {"cpus": 4, "cores": 2, "dies": 1, "sockets": 1, "nodes": 1},
        "nodes": [{"id": 0, "cpus": [0, 1, 2, 3], "memory_bytes": 1 << 30, "distances": {"0": 10}}],
        "caches": [
            {"level": 1, "type": "Data", "size_bytes": 32768, "cpus": [0, 2]},
            {"level": 1, "type": "Data", "size_bytes": 32768, "cpus": [1, 3]},
        ],
        "warnings": ["w"],
    }


def test_pool_cores_are_described_without_a_reason() -> None:
    cpus = describe(machine(singles(0, 1, 2)))["cpus"]
    assert isinstance(cpus, list)
    assert "reason" not in cpus[2]


def cpu(number: int, siblings: list[int], role: str, reason: str) -> dict[str, object]:
    base = {"id": number, "core": siblings[0], "socket": 0, "die": 0, "node": 0, "siblings": siblings}
    return base | {"role": role, "reason": reason}

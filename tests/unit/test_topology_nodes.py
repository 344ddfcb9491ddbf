"""NUMA nodes and caches, as kernels of all ages tell of them and as captures contradict themselves."""

from __future__ import annotations

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.topology import Cache, Topology

FOUR = {f"cpu/cpu{n}/topology/thread_siblings_list": str(n) for n in range(4)}


def nodes_of(topology: Topology) -> list[int]:
    return [cpu.node for cpu in topology.cpus]


def test_without_nodes_everything_is_in_node_0() -> None:
    topology = discover(FOUR)
    (node,) = topology.nodes
    assert (node.id, node.cpus, node.memory, node.distances) == (0, (0, 1, 2, 3), None, ())
    assert topology.warnings == ()


@pytest.mark.parametrize(
    "claims",
    [
        {"node/node0/cpulist": "0-1\n", "node/node5/cpulist": "2-3\n"},
        {"node/node0/cpumap": "00000003\n", "node/node5/cpumap": "0,0000000c\n"},
        {
            "node/node0/cpulist": "",
            "node/node0/cpumap": "3",
            "node/node5/cpulist": "zap",
            "node/node5/cpumap": "c",
        },
        dict.fromkeys(["node/node0/cpu0", "node/node0/cpu1", "node/node5/cpu2", "node/node5/cpu3"], ""),
        dict.fromkeys(["cpu/cpu0/node0", "cpu/cpu1/node0", "cpu/cpu2/node5", "cpu/cpu3/node5"], ""),
    ],
)
def test_the_cpus_of_sparse_nodes_come_from_lists_masks_or_links(claims: dict[str, str]) -> None:
    topology = discover(FOUR | {"node/node0": "", "node/node5": ""} | claims)
    assert nodes_of(topology) == [0, 0, 5, 5]
    assert [(node.id, node.cpus) for node in topology.nodes] == [(0, (0, 1)), (5, (2, 3))]


def test_memory_only_nodes_memory_and_distances() -> None:
    files = {
        "node/node0/cpulist": "0-3\n",
        "node/node0/distance": "10 28\n",
        "node/node0/meminfo": "Node 0 MemTotal:       2048 kB\nNode 0 MemFree:        1 kB\n",
        "node/node2/cpulist": "\n",
        "node/node2/distance": "28 10\n",
        "node/node2/meminfo": "Node 2 MemFree: 7 kB\n",
    }
    near, far = discover(FOUR | files).nodes
    assert (near.cpus, near.memory, near.distances) == ((0, 1, 2, 3), 2048 * 1024, ((0, 10), (2, 28)))
    assert (far.cpus, far.memory, far.distances) == ((), None, ((0, 28), (2, 10)))


def test_a_row_of_distances_may_range_over_nodes_that_are_gone() -> None:
    files = {
        "node/online": "1",
        "node/possible": "0-1",
        "node/node1/cpulist": "0-3",
        "node/node1/distance": "21 10",
    }
    topology = discover(FOUR | files)
    assert topology.nodes[0].distances == ((0, 21), (1, 10))
    assert topology.warnings == ()


@pytest.mark.parametrize("row", ["10 20 30", "ten"])
def test_a_row_of_distances_that_fits_no_nodes_is_told(row: str) -> None:
    topology = discover(FOUR | {"node/node0/cpulist": "0-3", "node/node0/distance": row})
    assert topology.nodes[0].distances == ()
    assert topology.warnings == (f"node/node0/distance: '{row}' is not one distance for each node; ignored",)


def test_cpus_that_several_nodes_claim_count_where_they_link_to() -> None:
    claims = {f"node/node{node}/cpulist": "0-3" for node in range(4)}
    links = {f"cpu/cpu{n}/node{n}": "" for n in (0, 2, 3)}
    topology = discover(FOUR | claims | links)
    assert nodes_of(topology) == [0, 0, 2, 3]
    assert [node.cpus for node in topology.nodes] == [(0, 1), (), (2,), (3,)]
    assert topology.warnings == ("NUMA files disagree on CPUs 0-3: each counts in one node only",)


def test_the_list_of_a_node_outweighs_a_stray_link() -> None:
    links = {"cpu/cpu2/node1": "", "node/node1": ""}
    topology = discover(FOUR | {"node/node0/cpulist": "0-3"} | links)
    assert nodes_of(topology) == [0, 0, 0, 0]
    assert topology.warnings == ("NUMA files disagree on CPUs 2: each counts in one node only",)


def test_a_link_to_a_node_without_a_directory_is_followed() -> None:
    links = {f"cpu/cpu{n}/node0": "" for n in (0, 2)}
    topology = discover(FOUR | {"node/node1/cpulist": "1,3"} | links)
    assert nodes_of(topology) == [0, 1, 0, 1]
    assert [(node.id, node.cpus) for node in topology.nodes] == [(0, (0, 2)), (1, (1, 3))]


def test_cpus_that_no_node_claims_count_in_node_0_and_are_told() -> None:
    topology = discover(FOUR | {"node/node1/cpulist": "2-3"})
    assert nodes_of(topology) == [0, 0, 1, 1]
    assert topology.warnings == ("no NUMA node claims CPUs 0-1: they count in node 0",)


def cache(number: int, index: int, **values: str) -> dict[str, str]:
    return {f"cpu/cpu{number}/cache/index{index}/{name}": text + "\n" for name, text in values.items()}


def test_each_cache_is_listed_once_with_the_online_cpus_that_share_it() -> None:
    first = {"level": "1", "type": "Data", "size": "48K"}
    last = {"level": "3", "type": "Unified", "size": "32M", "shared_cpu_list": "0-4"}
    files: dict[str, str] = {}
    for n in range(4):
        files |= cache(n, 0, **first, shared_cpu_map=f"{1 << n:x}") | cache(n, 3, **last)
    topology = discover(FOUR | files)
    private = [Cache(1, "Data", 48 << 10, (n,)) for n in range(4)]
    assert list(topology.caches) == [*private, Cache(3, "Unified", 32 << 20, (0, 1, 2, 3))]


def test_caches_of_which_little_is_told() -> None:
    files = cache(0, 0, level="2") | cache(1, 0, size="1M") | cache(2, 0, level="1", size="big")
    topology = discover(FOUR | files)
    assert topology.caches == (Cache(1, "", None, (2,)), Cache(2, "", None, (0,)))
    assert topology.warnings == ("cpu/cpu2/cache/index0/size: 'big' is not a size such as 32K; ignored",)

"""Trees as kernels of all ages and architectures write them, and as captures mangle them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.discovery import discover
from orchestrator.core.topology import Role, Topology
from orchestrator.errors import UsageError


def cpu(number: int, siblings: Iterable[int] = (), **topology: object) -> dict[str, str]:
    """Return the files of one CPU's directory; without siblings it is alone on its core."""
    base = f"cpu/cpu{number}"
    shared = format_cpulist(siblings or [number])
    values = {"core_id": number, "physical_package_id": 0, "thread_siblings_list": shared} | topology
    return {base: ""} | {f"{base}/topology/{name}": f"{value}\n" for name, value in values.items()}


def tree(*parts: dict[str, str]) -> dict[str, str]:
    return {path: text for part in parts for path, text in part.items()}


def ids(topology: Topology) -> list[int]:
    return [cpu.id for cpu in topology.cpus]


def column(topology: Topology, name: str) -> list[object]:
    return [getattr(cpu, name) for cpu in topology.cpus]


FOUR = tree(*(cpu(number) for number in range(4)))


def test_a_plain_host() -> None:
    topology = discover(FOUR | {"cpu/online": "0-3\n", "cpu/present": "0-3\n"})
    assert ids(topology) == [0, 1, 2, 3]
    assert column(topology, "role") == [Role.SCHEDULER, Role.SERVICE, Role.POOL, Role.POOL]
    assert column(topology, "siblings") == [(0,), (1,), (2,), (3,)]
    assert (topology.offline, topology.isolated, topology.nohz_full) == ((), (), ())
    assert topology.warnings == ()


def test_two_sockets_of_two_dies_repeat_core_numbers() -> None:
    numbers = range(16)
    files = tree(
        *(cpu(n, [n % 8, n % 8 + 8], core_id=n % 2, die_id=n // 2 % 2, physical_package_id=n // 4 % 2) for n in numbers)
    )
    topology = discover(files)
    assert column(topology, "core") == [0, 1] * 8
    assert column(topology, "die") == [0, 0, 1, 1] * 4
    assert column(topology, "socket") == [0, 0, 0, 0, 1, 1, 1, 1] * 2
    assert len(topology.cores) == 8
    assert topology.pool.cores == {2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15}


def test_a_hybrid_host_has_smt_on_some_cores_only() -> None:
    topology = discover(tree(cpu(0, [0, 1]), cpu(1, [0, 1]), cpu(2, [2, 3]), cpu(3, [2, 3]), cpu(4), cpu(5)))
    assert topology.cores == ((0, 1), (2, 3), (4,), (5,))
    assert topology.pool.cores == {2, 3, 4, 5}
    assert topology.smt


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thread_siblings_list", "0,2"),
        ("core_cpus_list", "0,2"),
        ("thread_siblings", "00000000,00000005"),
        ("core_cpus", "5"),
        ("core_cpus", "00000000000000000000000000000005\n\0"),
    ],
)
def test_siblings_come_from_any_of_four_files(name: str, text: str) -> None:
    files = {"cpu/online": "0-3"} | {f"cpu/cpu{n}/topology/{name}": text for n in (0, 2)}
    topology = discover(files | cpu(1) | cpu(3))
    assert column(topology, "siblings") == [(0, 2), (1,), (0, 2), (3,)]
    assert topology.cpu(2).reason == "SMT sibling of core 0"
    assert topology.warnings == ()


def test_an_empty_or_broken_sibling_file_gives_way_to_the_next() -> None:
    files = tree(*(cpu(n, thread_siblings_list="", core_cpus_list="zap", core_cpus="3") for n in (0, 1)))
    topology = discover(files)
    assert column(topology, "siblings") == [(0, 1), (0, 1)]
    assert [warning.partition(":")[0] for warning in topology.warnings] == [
        "cpu/cpu0/topology/core_cpus_list",
        "cpu/cpu1/topology/core_cpus_list",
    ]


def test_equal_core_numbers_make_no_siblings_where_no_file_names_any() -> None:
    # Some 12-core processors number their cores 0-5 twice within one socket, and have no SMT.
    files = {f"cpu/cpu{n}/topology/core_id": str(n % 2) for n in range(4)}
    topology = discover(files | {f"cpu/cpu{n}/topology/physical_package_id": "0" for n in range(4)})
    assert column(topology, "siblings") == [(0,), (1,), (2,), (3,)]
    assert topology.warnings == ("CPUs 0-3 name no SMT siblings: each counts as a core of its own",)


def test_a_cpu_missing_from_its_own_siblings_is_added() -> None:
    topology = discover(tree(cpu(0), cpu(1, [0])))
    assert column(topology, "siblings") == [(0,), (0, 1)]
    assert topology.warnings == ("CPUs 1 are not among their own SMT siblings: added to them",)


def test_offline_cpus_without_topology_and_siblings_that_name_them() -> None:
    files = tree(cpu(0, [0, 2]), cpu(1, [1, 3]), {"cpu/cpu2/online": "0\n", "cpu/cpu3/online": "0\n"})
    topology = discover(files | {"cpu/online": "0-1\n", "cpu/present": "0-3\n", "cpu/offline": "2-1023\n"})
    assert ids(topology) == [0, 1]
    assert topology.offline == (2, 3)
    assert column(topology, "siblings") == [(0,), (1,)]
    assert not topology.smt
    assert not topology.pool


def test_without_the_online_list_the_directories_decide() -> None:
    # cpu0 has no online file at all, and one kernel leaves it empty: both are on.
    online = {"cpu/cpu1/online": "1\n", "cpu/cpu2/online": "0\n", "cpu/cpu3/online": ""}
    topology = discover(FOUR | online)
    assert ids(topology) == [0, 1, 3]
    assert topology.offline == (2,)


def test_directories_of_cpus_that_are_not_present_are_no_offline_cpus() -> None:
    topology = discover(FOUR | {"cpu/online": "0-1", "cpu/present": "0-2"})
    assert topology.offline == (2,)


def test_holes_in_the_numbering_and_directories_of_other_things() -> None:
    others = dict.fromkeys(["cpu/cpufreq", "cpu/cpuidle", "cpu/cpu0/cpufreq", "cpu/power", "node/power"], "")
    topology = discover(tree(cpu(0), cpu(2), cpu(5), others))
    assert ids(topology) == [0, 2, 5]
    assert topology.pool.cores == {2, 5}
    assert topology.warnings == ("core 1, the service core, is absent; no other core takes its place",)


def test_an_offline_core_0_leaves_its_role_empty_and_its_sibling_reserved() -> None:
    files = tree({"cpu/cpu0/online": "0"}, cpu(1), cpu(2, [0, 2]), cpu(3))
    topology = discover(files | {"cpu/online": "1-3"})
    assert column(topology, "role") == [Role.SERVICE, Role.RESERVED, Role.POOL]
    assert topology.cpu(2).siblings == (2,)
    assert topology.warnings == ("core 0, the scheduler core, is offline; no other core takes its place",)


def test_an_online_cpu_without_a_directory_is_believed_and_told() -> None:
    topology = discover(tree(cpu(0), cpu(1), {"cpu/online": "0-2"}))
    assert ids(topology) == [0, 1, 2]
    assert "cpu/online names CPUs 2, which have no directory in the tree" in topology.warnings


def test_a_policy_that_reserves_cores_that_are_not_there_is_told() -> None:
    topology = discover(FOUR, reserved=iter([3, 7, 9]))
    assert topology.pool.cores == {2}
    assert topology.warnings == ("the policy reserves cores 7,9, which are not online",)


@pytest.mark.parametrize("text", ["-1\n", "", "zap"])
def test_missing_negative_and_broken_numbers_count_as_0(text: str) -> None:
    topology = discover(cpu(0, core_id=text, physical_package_id=text, die_id=text) | cpu(1))
    assert (topology.cpu(0).core, topology.cpu(0).socket, topology.cpu(0).die) == (0, 0, 0)
    assert len(topology.warnings) == (3 if text == "zap" else 0)


@pytest.mark.parametrize("text", ["", "\n", "(null)\n", "\0", "\n\0"])
def test_unset_lists_are_empty(text: str) -> None:
    topology = discover(FOUR | {"cpu/isolated": text, "cpu/nohz_full": text})
    assert (topology.isolated, topology.nohz_full, topology.warnings) == ((), (), ())


def test_isolated_and_nohz_full() -> None:
    topology = discover(FOUR | {"cpu/isolated": "2-3\n", "cpu/nohz_full": "3\n"})
    assert (topology.isolated, topology.nohz_full) == ((2, 3), (3,))


@pytest.mark.parametrize("files", [{}, {"cpu/cpu0/online": "0"}, {"cpu/online": "zap"}, {"cpu/cpuidle": ""}])
def test_a_tree_without_an_online_cpu_is_no_topology(files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="no CPU is online in this tree"):
        discover(files)


paths = st.sampled_from(
    [
        *FOUR,
        *("cpu/online", "cpu/present", "cpu/isolated", "cpu/cpu2/online", "cpu/cpu1/cache/index0/level"),
        *("node/node0/cpulist", "node/node1/cpumap", "node/node0/distance", "cpu/cpu3/node7"),
    ]
)
texts = st.sampled_from(["", "0", "-1", "1-3", "0,2", "f", "(null)", "\0", "10 20"]) | st.text(max_size=12)


@given(st.dictionaries(paths, texts))
@settings(deadline=None)
def test_no_mangled_file_breaks_discovery_or_lets_core_0_or_1_into_the_pool(mangled: dict[str, str]) -> None:
    try:
        topology = discover(FOUR | mangled)
    except UsageError:
        return
    online = set(ids(topology))
    assert topology.pool.cores <= online - {0, 1}
    assert all(cpu.id in cpu.siblings and online.issuperset(cpu.siblings) for cpu in topology.cpus)
    assert sorted(cpu for node in topology.nodes for cpu in node.cpus) == sorted(online)
    assert online.isdisjoint(topology.offline)

"""A tree on disk says the same as its texts; and this host's own tree can be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from orchestrator.core.discovery import discover
from orchestrator.errors import UsageError
from orchestrator.host.sysfs import read_topology

PLAIN = {
    "cpu/online": "0-1,4-5\n",
    "cpu/present": "0-5\n",
    "cpu/isolated": "4-5\n",
    "cpu/nohz_full": "(null)\n",
    **{f"cpu/cpu{n}/topology/core_id": f"{n % 4}\n" for n in (0, 1, 4, 5)},
    **{f"cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in (0, 1, 4, 5)},
    **{f"cpu/cpu{n}/topology/physical_package_id": "-1\n" for n in (0, 1, 4, 5)},
    **{f"cpu/cpu{n}/cache/index2/level": "2\n" for n in (0, 1, 4, 5)},
    **{f"cpu/cpu{n}/cache/index2/size": "512K\n" for n in (0, 1, 4, 5)},
    **{f"cpu/cpu{n}/cache/index2/shared_cpu_map": f"{0x11 << n % 4:08x}\n" for n in (0, 1, 4, 5)},
    "cpu/cpu2/online": "0\n",
    "cpu/cpu3/online": "0\n",
    "node/node0/cpulist": "0-1\n",
    "node/node0/meminfo": "Node 0 MemTotal:        4096 kB\n",
    "node/node0/distance": "10 21\n",
    "node/node1/cpumap": "00000030\n",
    "node/node1/distance": "21 10\n",
}

OLD = {f"cpu/cpu{n}/topology/thread_siblings": f"{1 << n:08x},00000000\n" for n in range(3)} | {
    "cpu/cpu1/online": "0\n",
    "cpu/cpu2/online": "1\n",
    "cpu/cpu0/topology/thread_siblings": "00000000,00000005\n",
    "cpu/cpu2/topology/thread_siblings": "00000000,00000005\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


@pytest.mark.parametrize("files", [PLAIN, OLD])
def test_a_tree_on_disk_says_the_same_as_its_texts(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_topology(write(tmp_path, files), [5]) == discover(files, [5])


def test_what_the_plain_tree_says(tmp_path: Path) -> None:
    topology = read_topology(write(tmp_path, PLAIN))
    assert [cpu.id for cpu in topology.cpus] == [0, 1, 4, 5]
    assert topology.offline == (2, 3)
    assert topology.cores == ((0, 4), (1, 5))
    assert not topology.pool
    assert [node.cpus for node in topology.nodes] == [(0, 1), (4, 5)]
    assert [cache.cpus for cache in topology.caches] == [(0, 4), (1, 5)]
    assert topology.warnings == ()


def test_links_between_cpus_and_nodes_count_even_if_they_lead_nowhere(tmp_path: Path) -> None:
    root = write(tmp_path, {f"cpu/cpu{n}/topology/core_cpus_list": str(n) for n in range(4)})
    (root / "node/node1").mkdir(parents=True)
    (root / "node/node1/cpu3").symlink_to("../../cpu/cpu3")
    (root / "cpu/cpu2/node7").symlink_to("../../node/node7")
    assert [cpu.node for cpu in read_topology(root).cpus] == [0, 0, 7, 1]


def test_directories_of_other_things_are_passed_over(tmp_path: Path) -> None:
    root = write(tmp_path, PLAIN | {"cpu/cpufreq/policy0/x": "", "cpu/cpuidle/x": "", "node/power/x": ""})
    assert read_topology(root) == discover(PLAIN)


def test_what_is_there_and_cannot_be_read_is_told(tmp_path: Path) -> None:
    root = write(tmp_path, {f"cpu/cpu{n}/topology/thread_siblings_list": str(n) for n in range(3)})
    (root / "cpu/cpu2/topology/core_id").mkdir()
    topology = read_topology(root)
    assert topology.cpu(2).core == 0
    assert topology.warnings == (
        f"cpu/cpu2/topology/core_id: cannot be read ({os.strerror(errno.EISDIR)}); taken as missing",
    )


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    root = write(tmp_path, PLAIN)
    (root / "cpu/cpu0/topology/core_id").write_bytes(b"\xff\xfe\x00")
    (warning,) = read_topology(root).warnings
    assert warning.startswith("cpu/cpu0/topology/core_id: ")


@pytest.mark.parametrize("name", ["absent", "", "file", "cpu", "nul\0"])
def test_a_directory_that_is_no_tree_is_a_usage_error_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / name
    with pytest.raises(UsageError, match=r"no cpu/ directory in it; give /sys/devices/system or a copy"):
        read_topology(root)


def test_a_tree_without_cpus_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    with pytest.raises(UsageError) as caught:
        read_topology(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: no CPU is online in this tree")


def test_this_host_is_read_without_a_warning_about_its_files() -> None:
    topology = read_topology()
    assert {cpu.id for cpu in topology.cpus} >= os.sched_getaffinity(0)
    assert not [warning for warning in topology.warnings if "cannot be read" in warning]

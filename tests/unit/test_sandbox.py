"""A sandbox: what the kernel says of a process's threads, judged part by part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.sandbox import Facts, capabilities, judge, parse_status
from orchestrator.host.sandbox import read_facts

STATUS = """\
Name:\tqemu-system-x86
Uid:\t{uid}\t{uid}\t{uid}\t{uid}
Gid:\t64055\t64055\t64055\t64055
CapEff:\t{caps}
CapBnd:\t{bound}
NoNewPrivs:\t{gains}
Seccomp:\t{seccomp}
Seccomp_filters:\t1
Cpus_allowed_list:\t{cores}
"""
CLOSED = {"uid": "64055", "caps": "0" * 16, "bound": "0" * 16, "gains": "1", "seccomp": "2", "cores": "2-3"}
LIMITS = {"memory.max": "536870912", "pids.max": "100", "io.max": "8:0 rbps=1048576 wbps=max"}


def facts(**changes: str) -> Facts:
    threads = [parse_status(STATUS.format(**CLOSED)), parse_status(STATUS.format(**CLOSED | changes))]
    return Facts(threads, ("mnt", "net"), LIMITS, enclosed=True)


def open_parts(found: Facts) -> dict[str, str]:
    return {each.name: each.found for each in judge(found, frozenset({0, 1})) if not each.closed}


def test_all_is_closed() -> None:
    assert open_parts(facts()) == {}
    found = {each.name: each.found for each in judge(facts(), frozenset({0, 1}))}
    assert found == {
        "user": "uid 64055, gid 64055",
        "files": "its guest's own, and what every QEMU reads (Landlock, as was noted at its start)",
        "capabilities": "none; none can be had",
        "seccomp": "a filter in each of 2 threads (1 in a row)",
        "privileges": "no program that it executes has more rights than it",
        "namespaces": "its own: mnt net",
        "memory": "at most 536870912 bytes",
        "threads": "at most 100 threads and processes",
        "disk speed": "8:0 rbps=1048576 wbps=max",
        "cores": "2-3",
    }


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"uid": "0"}, "user", "what root owns and is no file can be open to it"),
        ({"caps": "0000000000202000"}, "capabilities", "net_raw sys_admin"),
        ({"seccomp": "0"}, "seccomp", "1 of 2 threads have no filter"),
        ({"gains": "0"}, "privileges", "a set-uid program has its own"),
        ({"cores": "0,2"}, "cores", "0,2-3"),
    ],
)
def test_one_thread_is_enough_to_be_open(changes: dict[str, str], name: str, words: str) -> None:
    (part,) = open_parts(facts(**changes)).items()
    assert part[0] == name
    assert words in part[1]


def test_one_that_is_not_enclosed_may_use_what_its_user_may() -> None:
    found = open_parts(replace(facts(uid="0"), enclosed=False))
    assert found["files"] == "those that its user may use"
    assert "whatever root owns is open to it" in found["user"]


def test_without_namespaces_and_limits() -> None:
    found = open_parts(replace(facts(), own_namespaces=(), limits={"memory.max": "max", "pids.max": "max"}))
    assert sorted(found) == ["disk speed", "memory", "namespaces", "threads"]


def test_capabilities_by_name() -> None:
    assert capabilities("0") == ()
    assert capabilities("8000000000000001") == ("chown", "63")
    assert len(capabilities("000001ffffffffff")) == 41


@pytest.mark.parametrize(
    ("group", "files"),
    [
        ("0::/a/b\n", {"a/memory.max": "500", "a/b/memory.max": "max", "a/b/pids.max": "30", "pids.max": "70"}),
        (
            "5:memory:/m\n4:pids:/p\n0::/\n",
            {"memory/m/memory.limit_in_bytes": "500", "pids/p/pids.max": "30", "memory/memory.limit_in_bytes": "max"},
        ),
    ],
    ids=["v2", "v1"],
)
def test_what_is_read(tmp_path: Path, group: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / "cg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cg" / name).write_text(f"{text}\n")
    process = tmp_path / "proc" / "7"
    (process / "task" / "7").mkdir(parents=True)
    (process / "task" / "7" / "status").write_text(STATUS.format(**CLOSED))
    (process / "cgroup").write_text(group)
    for path, kind in ((process, "1"), (tmp_path / "proc" / "self", "2")):
        (path / "ns").mkdir(parents=True)
        (path / "ns" / "mnt").symlink_to(f"mnt:[{kind}]")
        (path / "ns" / "net").symlink_to("net:[9]")
    found = read_facts(7, tmp_path / "proc", tmp_path / "cg")
    assert found is not None
    assert (found.own_namespaces, found.limits) == (["mnt"], {"memory.max": "500", "pids.max": "30"})
    assert found.threads == [parse_status(STATUS.format(**CLOSED))]
    assert read_facts(8, tmp_path / "proc", tmp_path / "cg") is None

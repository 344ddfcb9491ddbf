"""Threads of real guests that somebody else moves: put back within a second, and in the journal with what was found."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.cpulist import parse_cpulist
from orchestrator.host.processes import ProcFs
from tests.lab.inside.looking import ORCHESTRATOR, ROOT, allowed_cores, ask, command, eventually, guests, says
from tests.lab.inside.servers import Servers, events

CGROUP = Path("/sys/fs/cgroup")
_VHOST_SET_OWNER = 0xAF01  # linux/vhost.h
JOURNAL = Path("/var/lib/orchestrator/journal.jsonl")
ANOTHER = 5
"""A core of the pool on which no guest is here."""

GUESTS = ("heartbeat-i386", "heartbeat-aarch64")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[Path, set[int]]]]:
    """Two guests that run, and stay where they are since nobody waits: each thread and where it may run."""
    servers = Servers(tmp_path_factory.mktemp("drift"))
    try:
        servers.start()
        definitions = [f"domains/{name}.toml" for name in GUESTS]
        started = command("start", *definitions)
        assert started.code == 0, started.err
        eventually(lambda: len(guests()) == len(GUESTS), "two guests")
        eventually(lambda: all(guest["state"] == "running" for guest in guests().values()), "both run")
        time.sleep(2)
        live = {name: Path(f"/proc/{guest['pid']}/task") for name, guest in guests().items()}
        yield {name: {task: allowed_cores(task) for task in path.iterdir()} for name, path in live.items()}
    finally:
        servers.clear()


def back_within(tasks: dict[Path, set[int]]) -> float:
    """Return in how many seconds every thread is where it was, at most a minute."""
    began = time.monotonic()
    while any(os.sched_getaffinity(int(task.name)) != cores for task, cores in tasks.items() if task.exists()):
        assert time.monotonic() < began + 60, {task.name: os.sched_getaffinity(int(task.name)) for task in tasks}
        time.sleep(0.01)
    return time.monotonic() - began


def recorded(name: str) -> list[dict[str, object]]:
    records = [json.loads(line) for line in JOURNAL.read_text().splitlines()]
    return [each["body"] for each in records if each["kind"] == "put back" and each["body"]["guest"] == name]


def by_taskset(task: Path) -> None:
    """Core 0 is in no guest's cpuset; one that is wrong and can be had is another of the pool."""
    refused = subprocess.run(["taskset", "-pc", "0", task.name], check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "Invalid argument" in refused.stderr
    subprocess.run(["taskset", "-pc", str(ANOTHER), task.name], check=True, capture_output=True)


def by_chrt(task: Path) -> None:
    os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(5))


def by_cgroup(task: Path) -> None:
    group = CGROUP / "evil"
    group.mkdir(exist_ok=True)
    (group / "cpuset.cpus").write_text("0\n")
    (group / "cgroup.procs").write_text(f"{task.parts[2]}\n")


@pytest.mark.parametrize("way", [by_taskset, by_cgroup, by_chrt])
@pytest.mark.parametrize("name", GUESTS)
def test_it_is_undone_within_a_second_and_recorded(
    tasks: dict[str, dict[Path, set[int]]], name: str, way: Callable[[Path], None]
) -> None:
    vcpu = next(task for task in tasks[name] if (task / "comm").read_text().startswith("CPU 0"))
    before = len(recorded(name))
    way(vcpu)
    if way is by_chrt:
        eventually(lambda: os.sched_getscheduler(int(vcpu.name)) == os.SCHED_OTHER, "an ordinary class")
    took = back_within(tasks[name])
    says(f"{name}, moved {way.__name__}: where it belongs after {took:.2f} s")
    assert took < 1
    eventually(lambda: len(recorded(name)) > before, "a record of it")
    found = recorded(name)[before]["found"]
    assert isinstance(found, list)
    (thread,) = [each for each in found if each["thread"] == int(vcpu.name)]
    assert thread["name"].startswith("CPU 0")
    assert parse_cpulist(thread["placement"]) == tasks[name][vcpu]
    assert thread["realtime"] is (way is by_chrt)
    moved = {by_taskset.__name__: {ANOTHER}, by_cgroup.__name__: {0}}
    assert parse_cpulist(thread["allowed"]) == moved.get(way.__name__, tasks[name][vcpu])
    assert [each for each in events() if each["what"] == "put back" and f"thread {vcpu.name} " in each["why"]]
    assert ask("show", name)["put_back"] >= 1


def test_a_watch_tells_of_it(tasks: dict[str, dict[Path, set[int]]], tmp_path: Path) -> None:
    """With a thread that is moved again and again, since both look only now and then."""
    name = GUESTS[0]
    vcpu = next(task for task in tasks[name] if (task / "comm").read_text().startswith("CPU 0"))
    log = tmp_path / "watch"
    with log.open("w") as file:
        arguments = [ORCHESTRATOR, "audit", "pins", "--watch", "--json"]
        watching = subprocess.Popen(arguments, stdout=file, cwd=ROOT)
    try:

        def is_told() -> bool:
            for _ in range(20):
                os.sched_setaffinity(int(vcpu.name), {4, 5})  # one core could be where it belongs now
                time.sleep(0.05)
            return f"thread {vcpu.name}" in log.read_text()

        eventually(is_told, "a line of the watch")
    finally:
        watching.terminate()
        watching.wait()
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(each["guest"], each["what"]) for each in told} == {(name, "astray")}
    assert any(f"thread {vcpu.name} " in each["thread"] and "may run on 4-5" in each["thread"] for each in told)
    back_within(tasks[name])


def test_threads_of_the_kernel_that_work_for_a_process_are_found_and_can_be_pinned() -> None:
    """As QEMU's network card on a bridge has them, under KVM: here for this very process."""
    subprocess.run(["modprobe", "vhost_net"], check=True)
    device = os.open("/dev/vhost-net", os.O_RDWR)
    try:
        fcntl.ioctl(device, _VHOST_SET_OWNER)
        kernel = ProcFs()
        (worker,) = kernel.workers(os.getpid())
        assert Path(f"/proc/{worker}/comm").read_text() == f"vhost-{os.getpid()}\n"
        assert kernel.standing(worker)[worker].allowed == set(range(os.cpu_count() or 0))  # where nobody pins it
        kernel.pin(worker, frozenset({2}))
        assert kernel.standing(worker)[worker].allowed == {2}
    finally:
        os.close(device)
    eventually(lambda: ProcFs().workers(os.getpid()) == (), "its end")

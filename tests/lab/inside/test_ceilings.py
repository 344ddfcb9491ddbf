"""Ceilings that the kernel sets: more memory, threads or disk speed than a guest's QEMU may have is refused to it.

A debugger makes the calls inside a QEMU that runs a guest, as somebody would who has taken it over.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.sandbox import parse_status
from tests.lab.inside.looking import ask, command, emulators, eventually, guests, heartbeats, says
from tests.lab.inside.servers import Servers

CGROUP = Path("/sys/fs/cgroup")
JOURNAL = Path("/var/lib/orchestrator/journal.jsonl")
GUESTS = ("heartbeat-i386", "heartbeat-aarch64")
SPEED = 2 << 20
DISK = Path("/dev/loop0")
pytestmark = pytest.mark.usefixtures("served")
POLICY = """
extends = "{lab}"
[hypervisor]
disk_speed = "2 MiB"
"""
THREADS = 1 + 64 + 32
MEMORY = (64 + 4 + 512 + 1024) << 20
"""Of a guest with one vCPU and 64 MiB under TCG, as core/bounds.py has it."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A disk that this host has, and its number."""
    subprocess.run(["modprobe", "loop"], check=True)
    image = tmp_path_factory.mktemp("disk") / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["losetup", str(DISK), str(image)], check=True)
    yield Path("/sys/block/loop0/dev").read_text().strip()
    subprocess.run(["losetup", "-d", str(DISK)], check=True)


@pytest.fixture(scope="module")
def served(disk: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("ceilings")
    policy = directory / "policy.toml"
    policy.write_text(POLICY.format(lab=Path("policies/lab.toml").absolute()))
    servers = Servers(directory, policy=str(policy))
    try:
        servers.start()
        started = command("start", *(f"domains/{name}.toml" for name in GUESTS))
        assert started.code == 0, started.err
        eventually(lambda: all(heartbeats(name) for name in GUESTS), "both beat")
        yield disk
    finally:
        servers.clear()


def group_of(pid: int) -> Path:
    (path,) = [line[4:] for line in Path(f"/proc/{pid}/cgroup").read_text().split() if line.startswith("0::/")]
    return CGROUP / path


def counted(group: Path, file: str, name: str) -> int:
    return int(dict(line.split() for line in (group / file).read_text().splitlines())[name])


def debug(pid: int, *commands: str) -> subprocess.Popen[bytes]:
    flags = [word for each in ("set print thread-events off", *commands) for word in ("-ex", each)]
    return subprocess.Popen(
        ["gdb", "-nx", "-batch", "-p", str(pid), *flags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )


def test_each_guest_has_a_group_of_its_own_with_its_bounds(served: str) -> None:
    groups = set()
    for name, guest in guests().items():
        group = group_of(guest["pid"])
        groups.add(group)
        assert group.parent == CGROUP / "orchestrator.guests"
        most = int((group / "memory.max").read_text())
        assert most == MEMORY
        assert int((group / "pids.max").read_text()) == THREADS
        assert (group / "io.max").read_text() == f"{served} rbps={SPEED} wbps={SPEED} riops=max wiops=max\n"
        assert (group.parent / "cpuset.cpus.effective").read_text() == "2-5\n"
        told = {row["name"]: row for row in json.loads(command("doctor", "--guest", name, "--json").out)["findings"]}
        assert {part: told[part]["level"] for part in ("memory", "threads", "disk speed")} == dict.fromkeys(
            ("memory", "threads", "disk speed"), "ok"
        ), told
        used = int((group / "memory.current").read_text())
        says(f"{name}: {used >> 20} MiB of {most >> 20}, {(group / 'pids.current').read_text().strip()} threads")
    assert len(groups) == len(GUESTS)


def test_whoever_takes_it_out_of_its_group_has_it_back_there_and_in_the_journal() -> None:
    pid = guests()[GUESTS[0]]["pid"]
    group = group_of(pid)
    began = time.monotonic()
    (CGROUP / "cgroup.procs").write_text(str(pid))
    while group_of(pid) != group:
        assert time.monotonic() < began + 60
        time.sleep(0.05)
    says(f"back in its group after {time.monotonic() - began:.2f} s")

    def recorded() -> list[str]:
        records = [json.loads(line) for line in JOURNAL.read_text().splitlines()]
        return [each["body"]["cgroup"] for each in records if each["kind"] == "put back" and "cgroup" in each["body"]]

    eventually(lambda: recorded() == ["/"], "a record of it")
    for task in Path(f"/proc/{pid}/task").iterdir():
        assert parse_status((task / "status").read_text())["Cpus_allowed_list"] not in ("0-5", "2-5")


def test_more_threads_than_allowed_are_refused() -> None:
    pid = guests()[GUESTS[0]]["pid"]
    group = group_of(pid)
    loop = "while $made == 0 && $count < 300"
    script = (
        *("set $made = 0", "set $count = 0", loop, "set $count = $count + 1"),
        "set $made = ((int(*)(void*,void*,void*,void*))pthread_create)((void*)($sp - 4096), 0, (void*)pause, 0)",
        "end",
        'printf "answer %d after %d\\n", $made, $count',
    )
    commands = Path("/run/threads.gdb")
    commands.write_text("\n".join(script) + "\n")
    said = debug(pid, f"source {commands}").communicate(timeout=280)[0].decode()
    assert "answer 11 after" in said, said  # EAGAIN
    assert int((group / "pids.current").read_text()) == THREADS
    assert counted(group, "pids.events", "max") > 0
    beats = heartbeats(GUESTS[1])
    eventually(lambda: heartbeats(GUESTS[1]) > beats, "its neighbour goes on")


def test_disks_are_no_faster_than_allowed() -> None:
    """By a program in the guest's group, since nobody can tell a QEMU to be in a hurry."""
    pid = guests()[GUESTS[1]]["pid"]
    write = f"echo $$ > {group_of(pid)}/cgroup.procs && exec dd if=/dev/zero of={DISK} bs=1M count=10 oflag=direct"
    began = time.monotonic()
    subprocess.run(["sh", "-c", write], check=True, capture_output=True)
    took = time.monotonic() - began
    says(f"10 MiB written in {took:.1f} s, at most {SPEED >> 20} MiB/s allowed")
    assert took > 3


def test_more_memory_than_allowed_ends_it_and_nobody_else() -> None:
    before = guests()
    pid = before[GUESTS[0]]["pid"]
    populate = 0x8022  # MAP_PRIVATE, MAP_ANONYMOUS, MAP_POPULATE
    debugger = debug(pid, f"print (long)syscall(9, 0, {MEMORY + (64 << 20)}, 3, {populate}, -1, 0)")
    try:
        eventually(lambda: pid not in emulators(), "its end")
    finally:
        debugger.kill()
        debugger.wait()
    eventually(lambda: guests()[GUESTS[0]]["state"] != "running", "that is known")
    says(f"it is told: {ask('show', GUESTS[0])['state']}")
    assert guests()[GUESTS[1]]["pid"] == before[GUESTS[1]]["pid"]
    beats = heartbeats(GUESTS[1])
    eventually(lambda: heartbeats(GUESTS[1]) > beats, "its neighbour goes on")


def test_nothing_is_left_of_guests_that_were_stopped() -> None:
    assert command("stop", "--all").code == 0
    eventually(lambda: not emulators(), "no guest")
    eventually(lambda: not (CGROUP / "orchestrator.guests").exists(), "no group")

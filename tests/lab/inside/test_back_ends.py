"""What serves guests' devices beside QEMU: on core 1 and nowhere else, put back when moved, and gone with the guest."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.functional.device_guest import CMDLINE, write_guest
from tests.lab.inside.looking import allowed_cores, ask, command, emulators, eventually, guests, says
from tests.lab.inside.servers import Servers, events
from tests.users import ALICE, one, starting
from tests.users import ask as asking

SOCKET = Path("/run/orchestrator/api/socket")
RUN = Path("/run/orchestrator/guests")
JOURNAL = Path("/var/lib/orchestrator/journal.jsonl")
PROGRAMS = {"qemu-storage-daemon", "virtiofsd", "swtpm"}

DEVICES = """
[[disk]]
path = "data.raw"
format = "raw"
backend = "vhost-user"
[[disk]]
path = "base.qcow2"
format = "qcow2"
overlay = true
backend = "vhost-user"
[[share]]
path = "files"
tag = "files"
[[share]]
path = "tools"
tag = "tools"
readonly = true
[tpm]
state = "tpm"
"""
LINUX = f"""
name = "uses"
architecture = "x86_64"
vcpus = 1
memory = "192 MiB"
[boot]
kernel = "device.vmlinux"
initrd = "device.cpio"
cmdline = "{CMDLINE}"
{DEVICES}"""
BARE = f"""
name = "bare"
architecture = "i386"
vcpus = 1
memory = "32 MiB"
[boot]
payload = "payload.elf"
{DEVICES.replace('state = "tpm"', "")}"""
NAMES = {"vda", "vdb", "share0", "share1", "tpm"}


@pytest.fixture(scope="module")
def home() -> Path:
    """A user's files; the lab forgets them."""
    path = Path("/tmp/back-ends")
    for folder in ("", "files", "tools", "tpm"):
        (path / folder).mkdir(mode=0o700)
    (path / "data.raw").write_bytes(b"the disk of hers".ljust(1 << 20))
    (path / "base.raw").write_bytes(b"the base of hers".ljust(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "base.raw", "base.qcow2"], check=True, cwd=path)
    for name in ("files", "tools"):
        (path / name / "greeting").write_text(f"hello {name}")
    write_guest(path)
    shutil.copy("domains/build/heartbeat-i386.elf", path / "payload.elf")
    for each in (path, *path.rglob("*")):
        os.chown(each, ALICE, ALICE)
    return path


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Servers(tmp_path_factory.mktemp("back-ends"))
    try:
        found.start()
        yield found
    finally:
        found.clear()


def beside() -> dict[int, str]:
    """Find back ends of whatever guest by what they execute."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            name = entry.readlink().name
            if name in PROGRAMS:
                found[int(entry.parent.name)] = name
    return found


def was_put_back(name: str, thread: int) -> bool:
    return bool(put_back(name, thread))


def started(text: str, home: Path) -> None:
    """Start a user's guest; what opens his files is a process that a busy lab takes long to start."""
    for _ in range(5):
        (answer,) = asking(ALICE, SOCKET, [starting(text, home)], limit=400).answers(500)
        if "did not let themselves be opened within" not in str(answer.body):
            break
    assert answer.status == 200, answer.body


def text_of(name: str) -> str:
    return (RUN / name / "serial.log").read_text(errors="replace")


def leftovers(name: str) -> set[str]:
    return {path.name for path in (RUN / name).iterdir()} - {"serial.log"}


def is_on_core_1(pid: int) -> bool:
    return all(allowed_cores(task) == {1} for task in Path(f"/proc/{pid}/task").iterdir())


def put_back(name: str, thread: int) -> list[dict[str, object]]:
    """Return the records of a guest's thread that was put back."""
    records = [json.loads(line) for line in JOURNAL.read_text().splitlines()]
    bodies = [each["body"] for each in records if each["kind"] == "put back" and each["body"]["guest"] == name]
    return [found for body in bodies for found in body["found"] if found["thread"] == thread]


@pytest.mark.usefixtures("servers")
def test_while_a_guest_uses_all_of_them_each_of_their_threads_is_on_core_1(home: Path) -> None:
    started(LINUX, home)
    eventually(lambda: "heartbeat 2\n" in text_of("uses").replace("\r", ""), "it has used all, and goes on with it")
    said = text_of("uses").replace("\r", "").splitlines()
    for line in (
        *("files: hello files", "files: written", "tools: hello tools"),
        *("vda: the disk of hers of 2048", "vda: written", "vda: 0123456789abcdef"),
        *("vdb: the base of hers of 2048", "vdb: written", "vdb: 0123456789abcdef"),
    ):
        assert line in said, said
    assert any(line.startswith("tpm: 2 ") for line in said)
    began, looks, threads = time.monotonic(), 0, set[str]()
    used = {pid: used_ticks(pid) for pid in beside()}
    while time.monotonic() - began < 15:
        there = beside()
        assert sorted(there.values()) == ["qemu-storage-daemon"] * 2 + ["swtpm"] + ["virtiofsd"] * 2
        for pid in there:
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):  # virtiofsd's come and go
                    assert allowed_cores(task) == {1}, (there[pid], task)
                    assert last_core(task) == 1, (there[pid], task)
                    threads.add(task.name)
        looks += 1
        time.sleep(0.05)
    busy = [there[pid] for pid, ticks in used.items() if used_ticks(pid) > ticks]
    says(f"{len(threads)} threads of 5 back ends, looked at {looks} times: each on core 1; busy meanwhile: {busy}")
    assert {"qemu-storage-daemon", "virtiofsd"} <= set(busy)
    assert {status(pid, "Uid").split()[0] for pid in there} == {str(ALICE)}
    (emulator,) = emulators()
    assert not set().union(*(allowed_cores(task) for task in Path(f"/proc/{emulator}/task").iterdir())) & {0, 1}


def last_core(task: Path) -> int:
    return int((task / "stat").read_text().rpartition(")")[2].split()[36])


def used_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))


@pytest.mark.usefixtures("servers")
def test_one_that_is_moved_is_put_back_and_that_is_recorded() -> None:
    for pid, name in sorted(beside().items(), key=lambda pair: pair[1]):
        began = time.monotonic()
        subprocess.run(["taskset", "-apc", "0,2", str(pid)], check=True, capture_output=True)
        eventually(partial(is_on_core_1, pid), f"{name} is where it belongs")
        says(f"{name}: on core 1 again after {time.monotonic() - began:.1f} s or less")
        eventually(partial(was_put_back, "uses", pid), "a record of it")
        found = put_back("uses", pid)[0]
        assert (found["allowed"], found["placement"]) == ("0,2", "1")
    assert [each for each in events() if each["what"] == "put back" and "its placement gives it 1" in each["why"]]
    assert command("audit", "pins").code == 0


@pytest.mark.usefixtures("servers")
def test_they_end_with_the_guest(home: Path) -> None:
    assert one(ALICE, SOCKET, "POST", "/v1/guests/uses/stop").status == 200
    assert beside() == {}
    assert leftovers("uses") == set()
    # What was written is where it belongs.
    assert (home / "data.raw").read_bytes()[:16] == b"0123456789abcdef"
    assert (home / "files" / "answer").read_text() == "from the guest\n"
    assert not (home / "tools" / "answer").exists()
    assert (home / "tpm" / "tpm2-00.permall").exists()


@pytest.mark.usefixtures("servers")
def test_a_guest_whose_back_end_ends_is_ended_and_says_why(home: Path) -> None:
    started(BARE, home)
    (victim, *_) = [pid for pid, name in beside().items() if name == "qemu-storage-daemon"]
    name = next(path.stem for path in (RUN / "bare").glob("*.process") if path.read_text().startswith(f"{victim} "))
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: guests()["bare"]["state"] == "stopped", "its end")
    assert f"its back end {name} has ended" in ask("show", "bare")["ended"]
    eventually(lambda: beside() == {}, "the end of the others")
    eventually(lambda: leftovers("bare") == set(), "nothing is left")


def test_they_outlive_the_scheduler_and_not_the_guest(servers: Servers, home: Path) -> None:
    started(BARE, home)
    before = beside()
    assert len(before) == len(NAMES)
    servers.running().kill()
    assert beside() == before
    servers.start()
    assert guests()["bare"]["state"] == "running"
    assert beside() == before
    (emulator,) = emulators()
    os.kill(emulator, signal.SIGKILL)
    eventually(lambda: beside() == {}, "their end")
    eventually(lambda: leftovers("bare") == set(), "nothing is left")


def test_a_scheduler_that_comes_back_ends_those_whose_guest_ended_meanwhile(servers: Servers, home: Path) -> None:
    started(BARE, home)
    servers.running().kill()
    (emulator,) = emulators()
    os.kill(emulator, signal.SIGKILL)
    eventually(lambda: set(beside().values()) == {"qemu-storage-daemon"}, "these alone do not end by themselves")
    serve = servers.start()
    assert beside() == {}
    serve.tells("bare: ended vda, vdb, whose guest has ended")
    of_theirs = {f"{name}{end}" for name in NAMES for end in (".process", ".sock")} | {"tpm-state"}
    assert not leftovers("bare") & of_theirs

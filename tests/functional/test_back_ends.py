"""A real guest whose disks, folders and TPM are served from beside QEMU, by processes that are its owner's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.device_guest import write_guest
from tests.functional.libvirtd import definitions, staged, told, until
from tests.users import ALICE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users, and mount")

ROOT = Path(__file__).parents[2]
SIZE = 1 << 20
BEFORE = {"data.raw": b"the disk of hers", "base.raw": b"the base of hers"}


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that users may enter, as root's own of pytest they may not; with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="be-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_guest_uses_all_of_them_and_each_is_its_owners_on_core_1(base: Path) -> None:
    home = base / "alice"
    for folder in ("", "files", "tools", "tpm"):
        (home / folder).mkdir()
    for name, text in BEFORE.items():
        (home / name).write_bytes(text.ljust(SIZE, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "base.raw", "base.qcow2"], check=True, cwd=home)
    (home / "files" / "greeting").write_text("hello")
    (home / "tools" / "greeting").write_text("hello tools")
    write_guest(home)
    for path in (home, *home.rglob("*")):
        os.chown(path, ALICE, ALICE)
        path.chmod(0o700)
    base_before = (home / "base.qcow2").read_bytes()
    command = [sys.executable, "-m", "tests.functional.backends_side", str(base), str(home), str(ALICE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = found["printed"].splitlines()
    for line in (
        *("files: hello", "files: written", "tools: hello tools"),
        *("vda: the disk of hers of 2048", "vda: written", "vda: 0123456789abcdef"),
        *("vdb: the base of hers of 2048", "vdb: written", "vdb: 0123456789abcdef"),
    ):
        assert line in lines
    assert any(line.startswith("tpm: 2 ") and len(line) == len("tpm: 2 ") + 64 for line in lines)
    assert any("/tools/answer: Read-only file system" in line for line in lines)
    # What the guest wrote is where it belongs, and nowhere else.
    assert (home / "data.raw").read_bytes()[:16] == b"0123456789abcdef"
    assert (home / "base.qcow2").read_bytes() == base_before
    answer = home / "files" / "answer"
    assert (answer.read_text(), answer.stat().st_uid) == ("from the guest\n", ALICE)
    assert not (home / "tools" / "answer").exists()
    assert (home / "tpm" / "tpm2-00.permall").stat().st_uid == ALICE
    assert set(found["beside"]) == {"vda", "vdb", "share0", "share1", "tpm"}
    for name, each in found["beside"].items():
        assert each["threads"], name
        assert {tuple(thread) for thread in each["threads"]} == {("1", 1)}, name
        assert (each["uids"], each["no_new_privs"]) == ([str(ALICE)], "1"), name
        assert each["user_namespace"] == name.startswith("share")
        assert name.startswith("share") or int(each["capabilities"], 16) == 0
    assert found["left"] == ["serial.log"]
    assert found["still_there"] == []


DEVICES = """
[[disk]]
path = "data.raw"
format = "raw"
overlay = true
backend = "vhost-user"
[[share]]
path = "files"
tag = "files"
[tpm]
"""


def beside(directory: Path) -> dict[int, frozenset[int]]:
    """Return each process that was noted beside a guest and goes on, and where its threads may run."""
    found = {}
    for note in directory.rglob("*.process"):
        pid = int(note.read_text().split()[0])
        with contextlib.suppress(OSError):
            tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
            found[pid] = frozenset().union(*map(os.sched_getaffinity, tasks))
    return found


@contextlib.contextmanager
def cleared(directory: Path) -> Iterator[None]:
    """End what a test that fails leaves behind."""
    try:
        yield
    finally:
        for pid in beside(directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_under_libvirts_own_daemon_they_outlive_the_scheduler_and_not_the_guests() -> None:
    with staged() as stage, cleared(stage.directory):
        (stage.directory / "files").mkdir()
        (stage.directory / "data.raw").write_bytes(bytes(SIZE))
        definition, _ = definitions(stage.directory)
        Path(definition).write_text(Path(definition).read_text() + DEVICES)
        first = stage.mortals.begin(definition)
        stage.mortals.go(first)
        assert {Path(f"/proc/{pid}").owner() for pid in stage.guests().values()} == {"libvirt-qemu"}
        before = beside(stage.directory)
        assert list(before.values()) == [{1}] * 6
        stage.turns()
        stage.mortals.kill(first)
        assert beside(stage.directory) == before
        second = stage.mortals.begin()
        assert (second["notes"], second["gone"]) == ([], [])
        stage.mortals.go(second)
        stage.turns()
        one, other = stage.guests().items()
        os.kill(one[1], signal.SIGKILL)
        assert told(stage, "gone")["guest"] == one[0]
        until(lambda: len(beside(stage.directory)) == 3, "they end with their guest")
        until(lambda: not list((stage.directory / "run" / "guests" / one[0]).glob("*.process")), "nothing is left")
        stage.mortals.kill(second)
        os.kill(other[1], signal.SIGKILL)
        until(lambda: len(beside(stage.directory)) == 1, "the storage daemon does not end by itself")
        third = stage.mortals.begin()
        assert third["notes"] == [f"{other[0]}: ended vda, whose guest has ended"]
        assert beside(stage.directory) == {}
        assert not list(stage.directory.rglob("*.process"))
        stage.mortals.kill(third)

"""The single-writer lock: one holder, which is named to everybody else, and which cannot outlive its process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import HostError, RefusedError
from orchestrator.host.writer_lock import WriterLock

HOLDER = """
import sys
from pathlib import Path
from orchestrator.host.writer_lock import WriterLock
lock = WriterLock(Path(sys.argv[1]))
lock.acquire()
sys.stdout.write(".")
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def holder(path: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process hold the lock."""
    command = [sys.executable, "-c", HOLDER, str(path), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        yield process


def is_free(path: Path) -> bool:
    lock = WriterLock(path)
    try:
        lock.acquire()
    except RefusedError:
        return False
    lock.release()
    return True


def test_it_is_taken_given_back_and_taken_again(path: Path) -> None:
    lock = WriterLock(path)
    lock.acquire()
    lock.acquire()
    assert not is_free(path)
    lock.release()
    lock.release()
    assert is_free(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_process_is_told_who_holds_it(path: Path) -> None:
    with holder(path, "two words") as process:
        with pytest.raises(RefusedError) as caught:
            WriterLock(path).acquire()
        process.kill()
    (line,) = str(caught.value).splitlines()
    start = re.escape(f"{path}: another scheduler runs on this host: process {process.pid} of ")
    assert re.match(start + r"\w+, `.*python.* -c .*import sys", line)
    assert re.search(r"`, since 2\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d; end it first$", line)


def test_it_ends_with_its_holder_however_that_ends(path: Path) -> None:
    with holder(path) as process:
        assert not is_free(path)
        process.kill()
        process.wait()
        assert is_free(path)


def test_no_program_that_the_holder_starts_inherits_it(path: Path) -> None:
    lock = WriterLock(path)
    lock.acquire()
    program = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        opened = {file.readlink() for file in Path(f"/proc/{child.pid}/fd").iterdir()}
        child.kill()
    assert path in {file.readlink() for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    assert path not in opened
    lock.release()


@pytest.mark.parametrize("said", ["", "noise", "[]", "{}", "pid", "started", "since"])
def test_a_holder_that_has_not_said_who_it_is_is_not_taken_for_the_last_one(path: Path, said: str) -> None:
    lock = WriterLock(path)
    lock.acquire()
    about = json.loads(path.read_bytes())
    if said in about:
        about[said] = {"pid": 1, "started": about["started"] - 1, "since": 1e300}[said]
        said = json.dumps(about)
    path.write_text(said)
    with pytest.raises(RefusedError, match="it has not said yet who it is; end it first"):
        WriterLock(path).acquire()
    lock.release()


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="none/lock: cannot be the scheduler's lock: No such file or directory; give"):
        WriterLock(tmp_path / "none" / "lock").acquire()
    with pytest.raises(HostError, match="Is a directory"):
        WriterLock(tmp_path).acquire()

"""What goes wrong on a host while the guard is asked to act, each for as long as its context lasts."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FORKS = "import os, sys\nsys.stdin.readline()\ntry: os.fork()\nexcept OSError as error: print(error.errno)\n"


@contextmanager
def full(state: Path) -> Iterator[None]:
    """Fill the disk that this folder is on."""
    filler = state / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Have the file system that is mounted here answer to no write."""
    subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


@contextmanager
def spinning(cores: Iterable[int]) -> Iterator[None]:
    """Have these cores spin at SCHED_FIFO."""
    spinners = []
    for core in cores:
        pid = os.fork()
        if pid == 0:
            os.sched_setaffinity(0, {core})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
            while True:
                pass
        spinners.append(pid)
    try:
        yield
    finally:
        for pid in spinners:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def no_forks(*pids: int) -> Iterator[None]:
    """Let no process or thread be made by these processes, which is seen by one more that tries."""
    root = Path("/sys/fs/cgroup")
    legacy = root / "pids"
    group = (legacy if legacy.is_dir() else root) / f"orchestrator-guard-{os.getpid()}"
    group.mkdir()
    if not (group / "pids.max").exists():
        group.rmdir()
        pytest.skip("no pids controller here, by which forks can be forbidden")
    tries = subprocess.Popen(
        [sys.executable, "-S", "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    members = (*pids, tries.pid)
    before = {pid: own_group(pid, legacy=legacy.is_dir()) for pid in members}
    try:
        for pid in members:
            (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        assert tries.communicate("\n", 60)[0].strip() == str(errno.EAGAIN)
        (group / "pids.max").write_text((group / "pids.current").read_text())
        yield
    finally:
        (group / "pids.max").write_text("max")
        for pid in pids:
            (group.parent / before[pid] / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def own_group(pid: int, *, legacy: bool) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if ("pids" in controllers.split(",")) if legacy else number == "0":
            return path.lstrip("/")
    pytest.skip("no pids controller here, by which forks can be forbidden")

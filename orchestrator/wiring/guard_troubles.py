"""What goes wrong on a host while the guard is measured, each for as long as its context lasts. Most needs root."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import HostError

_CGROUPS = Path("/sys/fs/cgroup")
_SPINNER_PRIORITY = 50
_SPIN = ("sh", "-c", "while :; do :; done")
_PER_CORE = 3  # processes that keep each core busy


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def busy() -> Iterator[int]:
    """Keep every core busy, with so many processes."""
    with _running([_SPIN] * (_PER_CORE * len(os.sched_getaffinity(0)))) as count:
        yield count


@contextmanager
def spinning(cores: Iterable[int]) -> Iterator[None]:
    """Have these cores spin at SCHED_FIFO. HostError if that is not permitted."""
    priority = str(_SPINNER_PRIORITY)
    commands = [("taskset", "-c", str(core), "chrt", "--fifo", priority, *_SPIN) for core in cores]
    if os.geteuid() != 0:
        raise HostError("real-time processes are root's to start")
    with _running(commands):
        yield


@contextmanager
def _running(commands: Iterable[tuple[str, ...]]) -> Iterator[int]:
    """Run these processes meanwhile; they end with this one, whatever happens to it."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL))
        yield len(processes)
    except FileNotFoundError as error:
        raise HostError(f"{error.filename}: no such program; it is in Debian's util-linux") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Have a disk of its own at this folder, which is made. HostError if nothing can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError(f"no disk can be mounted to be filled: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk that this folder is on."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def no_forks(*pids: int) -> Iterator[None]:
    """Let no process or thread be made by these processes: they are put into a group that is as large as it may be.

    HostError if there is no such controller, or it is not ours to use.
    """
    version = 1 if (_CGROUPS / "pids").is_dir() else 2
    group = (_CGROUPS / "pids" if version == 1 else _CGROUPS) / f"orchestrator-{os.getpid()}"
    before = {pid: _group_of(pid, version) for pid in pids}
    try:
        group.mkdir()
        most = group / "pids.max"
        if not most.exists():
            raise HostError("there is no pids controller, by which forks can be forbidden")
    except OSError as error:
        raise HostError(f"{group}: forks cannot be forbidden: {error.strerror}") from None
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        most.write_text((group / "pids.current").read_text())
        if os.getpid() in pids:
            _require_no_fork()
        yield
    finally:
        with contextlib.suppress(OSError):  # where there is none
            most.write_text("max")
        for pid, path in before.items():
            (group.parent / path / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _require_no_fork() -> None:
    """Raise HostError if this process can be forked all the same."""
    try:
        pid = os.fork()
    except BlockingIOError:
        return
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    raise HostError("forks are possible here, although they have been forbidden")


def _group_of(pid: int, version: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if ("pids" in controllers.split(",")) if version == 1 else number == "0":
            return path.lstrip("/")
    raise HostError("there is no pids controller, by which forks can be forbidden")

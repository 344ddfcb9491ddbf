"""The single-writer lock: one scheduler per host, held by the kernel, so that it ends with its holder."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import HostError, RefusedError

_MOST_BYTES = 64 * 1024  # of what a holder says of itself: a command line may be long


class WriterLock:
    """An flock(2) on the file `path`, in which its holder says who it is.

    The file is never removed: two processes could lock two files of one name then. The lock ends with the process,
    however that ends, and no program started by it inherits it (O_CLOEXEC); a bare fork would, so its holder must not
    make one. The file must be on this host's own disk or tmpfs. `what` is what only one of may run, in words.
    """

    def __init__(self, path: Path, what: str = "scheduler", remedy: str = "end it first") -> None:
        self._path = path
        self._what = what
        self._remedy = remedy
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; fine if this object has it already.

        RefusedError tells who holds it: pid, user, command and since when. HostError if the file cannot be used.
        """
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = json.dumps(_about_this_process()).encode()
            os.pwrite(descriptor, said, 0)
            os.ftruncate(descriptor, len(said))
        except BlockingIOError:
            holder = _describe(os.pread(descriptor, _MOST_BYTES, 0))
            os.close(descriptor)
            raise RefusedError(
                f"{self._path}: another {self._what} runs on this host: {holder}; {self._remedy}"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise self._unusable(error) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; fine if this object does not have it."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # at once, though a child may be about to begin
            os.close(self._descriptor)
            self._descriptor = None

    def _unusable(self, error: OSError) -> HostError:
        return HostError(f"{self._path}: cannot be the {self._what}'s lock: {error.strerror}; give access or make room")


def _about_this_process() -> dict[str, object]:
    pid = os.getpid()
    return {
        "pid": pid,
        "started": _start_time(pid),
        "user": _user(os.geteuid()),
        "command": Path(f"/proc/{pid}/cmdline").read_bytes()[:4096].decode("utf-8", "replace").split("\0")[:-1],
        "since": time.time_ns(),
    }


def _describe(said: bytes) -> str:
    """Say in words who holds the lock. What the last holder said may still be there: its pid and start time tell."""
    unknown = "it has not said yet who it is"
    try:
        about = json.loads(said)
        pid, command = int(about["pid"]), " ".join(shlex.join(map(str, about["command"])).split())
        since = datetime.fromtimestamp(about["since"] // 1_000_000_000, UTC).astimezone().isoformat(" ")
        if _start_time(pid) != about["started"]:
            return unknown
    except (ValueError, TypeError, KeyError, OverflowError):
        return unknown
    return f"process {pid} of {about['user']}, `{command[:300]}`, since {since}"


def _start_time(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the host did (proc(5), field 22 of stat), if it is there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)

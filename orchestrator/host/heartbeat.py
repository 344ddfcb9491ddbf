"""The scheduler's heartbeat in shared memory: a file in the run directory that its loop stamps and the guard maps."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from struct import Struct

from orchestrator.core.heartbeat import Beat
from orchestrator.errors import HostError

_LAYOUT = Struct("=QQQQ")
"""pid, when that process began (clock ticks since the host did), its last beat (CLOCK_MONOTONIC, ns); 1 at its end."""


class Heart:
    """Beats, in the file `path`. HostError if it cannot be had."""

    def __init__(self, path: Path) -> None:
        self._memory = _mapped(path, os.O_RDWR | os.O_CREAT)
        stat = Path("/proc/self/stat").read_text("utf-8", "replace")
        self._who = os.getpid(), int(stat.rpartition(")")[2].split()[19])
        self.beat()

    def beat(self) -> None:
        """Say that the loop goes round. No system call but the clock's."""
        _LAYOUT.pack_into(self._memory, 0, *self._who, time.monotonic_ns(), 0)

    def end(self) -> None:
        """Say that the end is wanted."""
        _LAYOUT.pack_into(self._memory, 0, *self._who, time.monotonic_ns(), 1)


class Listener:
    """Feels for the heartbeat in the file `path`, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._memory = _mapped(path, os.O_RDWR | os.O_CREAT)

    def last(self) -> Beat | None:
        """Return the last beat; None if there was none."""
        pid, began, at, ended = _LAYOUT.unpack_from(self._memory)
        return Beat(pid, began, at, bool(ended)) if pid else None


def _mapped(path: Path, flags: int) -> mmap.mmap:
    try:
        handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(handle).st_size < mmap.PAGESIZE:
                os.ftruncate(handle, mmap.PAGESIZE)
            return mmap.mmap(handle, mmap.PAGESIZE)
        finally:
            os.close(handle)
    except OSError as error:
        raise HostError(f"{path}: the scheduler's heartbeat cannot be there: {error.strerror}; give access") from None

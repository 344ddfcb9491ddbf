"""A file of a fixed size in the run directory, in memory: where records go that the disk does not take."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from orchestrator.core.journal import Record
from orchestrator.core.journal_lines import records_in
from orchestrator.errors import HostError

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of fallocate(2)


class ReserveFile:
    """Keeps lines in the file at `path`, at most `size` bytes, which are set aside at once. HostError without them."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        try:
            path.parent.mkdir(mode=0o711, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HostError(f"{path}: the guard's reserve cannot be there: {error.strerror}; give access") from None
        self._used = os.fstat(self._descriptor).st_size
        self._set_aside()

    def records(self) -> list[Record]:
        """Return those that are in it, from before too."""
        return records_in(os.pread(self._descriptor, self._used, 0).splitlines())

    def add(self, line: bytes, *, urgent: bool) -> None:
        """Keep a line. HostError if there is no room: what is not urgent has half of it."""
        room = self._size if urgent else self._size // 2
        if self._used + len(line) > room:
            raise HostError(f"{self._path}: the reserve of {self._size >> 10} KiB is used up, too")
        try:
            self._used += os.pwrite(self._descriptor, line, self._used)
        except OSError as error:
            raise HostError(f"{self._path}: the reserve cannot be written to: {error.strerror}") from None

    def clear(self) -> None:
        """Forget all of them."""
        if self._used:
            os.ftruncate(self._descriptor, 0)
            self._used = 0
            with contextlib.suppress(HostError):  # then it is seen when something is to be added
                self._set_aside()

    def close(self) -> None:
        """Close the file, and leave what is in it for who opens it next."""
        os.close(self._descriptor)

    def _set_aside(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        offset, length = ctypes.c_int64(0), ctypes.c_int64(self._size)
        if libc.fallocate(self._descriptor, _KEEP_SIZE, offset, length) != 0:
            why = os.strerror(ctypes.get_errno())
            raise HostError(f"{self._path}: no {self._size >> 10} KiB can be set aside: {why}; make room in memory")

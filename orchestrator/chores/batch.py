"""A log of JSON lines on a disk, written in batches that are durable one by one, and never longer than its limit."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

import msgspec

from orchestrator.chores.files import open_append, rotate

MOST_WAITING = 4 << 20
"""The bytes that may wait in memory while the disk takes nothing."""

_BATCH_BYTES = MOST_WAITING // 4

_RETRY = 200_000_000  # nanoseconds between attempts while the disk takes nothing
_LONGEST = 1 << 20  # bytes at the end of a log in which its last line surely begins


class BatchLog:
    """The log at `path`; when it would be longer than `limit` bytes, it becomes ``PATH.1`` and a new one begins.

    A batch is written and made durable (fdatasync) when `records` of them wait, or a MiB, or the first has waited for
    `patience` nanoseconds. What the disk refuses is taken back, kept in memory as far as it fits (the newest do not),
    and tried again; the log says at that place how many were lost. Times are monotonic, in nanoseconds, and the
    caller's.
    """

    def __init__(self, path: Path, limit: int, records: int, patience: int) -> None:
        self.durable = self.lost = self.errno = 0
        self._path = path
        self._limit = limit
        self._records = records
        self._patience = patience
        self._waiting: deque[tuple[bytes, int]] = deque()  # lines, and how many records each is: 1 or 0
        self._bytes = self._unsaid = 0
        self._due: int | None = None
        self._descriptor: int | None = None
        self._size = 0
        with contextlib.suppress(OSError):  # shown with the first batch that it refuses
            self._ready()

    @property
    def full(self) -> bool:
        """Whether a batch is complete, on a disk that takes it: nothing more is to be added before it is written."""
        return not self.errno and (len(self._waiting) >= self._records or self._bytes >= _BATCH_BYTES)

    @property
    def due(self) -> int | None:
        """When `flush` is to be called, None if nothing waits."""
        return self._due

    def add(self, record: object, now: int, *, counts: bool = True) -> None:
        """Take a record; `counts` is false for what this process itself has to say."""
        line = msgspec.json.encode(record) + b"\n"
        if self._bytes + len(line) > MOST_WAITING and counts:
            self.lost += 1
            self._unsaid += 1
            return
        self._waiting.append((line, int(counts)))
        self._bytes += len(line)
        if self._due is None:
            self._due = now + self._patience
        if self.full:
            self._due = now

    def flush(self, now: int, at: int) -> None:
        """Write what waits and make it durable; `at` is wall-clock time, for what the log itself has to say."""
        try:
            while self._waiting:
                self._write(self._ready())
                if not self._waiting and self._unsaid:
                    said = {"at": at, "kind": "lost", "count": self._unsaid, "why": os.strerror(self.errno)}
                    self._unsaid = 0
                    self.add(said, now, counts=False)
        except OSError as error:
            self._take_back()
            self.errno = error.errno or 0
            self._due = now + _RETRY
        else:
            self.errno = 0
            self._due = None

    def _write(self, descriptor: int) -> None:
        """Write as many lines as the file has room for, at least one in an empty file; in a full one, begin anew."""
        lines: list[bytes] = []
        length = records = 0
        for line, record in self._waiting:
            if self._size + length + len(line) > self._limit and (lines or self._size):
                break
            lines.append(line)
            length += len(line)
            records += record
        if not lines:
            self._descriptor = None
            rotate(self._path, descriptor)
            return
        batch, written = b"".join(lines), 0
        while written < length:
            written += os.write(descriptor, batch[written:])
        os.fdatasync(descriptor)
        self._size += length
        self._bytes -= length
        self.durable += records
        for _ in lines:
            self._waiting.popleft()

    def _ready(self) -> int:
        """Return the descriptor of the log, which is opened anew if somebody removed it."""
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self._descriptor = open_append(self._path)
            self._size = os.fstat(self._descriptor).st_size
            tail = os.pread(self._descriptor, _LONGEST, max(0, self._size - _LONGEST))
            torn = len(tail) - (tail.rfind(b"\n") + 1)
            if torn:  # by a crash in the middle of writing: it was never durable
                self._size -= torn
                os.ftruncate(self._descriptor, self._size)
        return self._descriptor

    def _take_back(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)

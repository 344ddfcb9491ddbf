"""The journal on a disk: one file, one writer, and nothing is appended before what was appended is durable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.journal import MOST_BYTES, START, Head, Record, decode, encode, follow
from orchestrator.errors import HostError, UsageError


class JournalFile:
    """The journal at `path`, which is made if it is not there; its owner alone may read it.

    A last line that was torn by a crash in the middle of writing is moved into ``PATH.torn-N``, and `notes` says so: no
    append of it has returned. Only the last two records are looked at; `core.journal.verify` looks at all. HostError if
    they are not as they were written, or if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes: tuple[str, ...] = ()
        self._descriptor: int | None = None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed("cannot be opened", error) from None
        try:
            self._head = self._take_up(descriptor)
            _sync_directory(path)
        except OSError as error:
            os.close(descriptor)
            raise self._failed("cannot be read", error) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    @property
    def head(self) -> Head:
        """How far it goes."""
        return self._head

    @property
    def notes(self) -> tuple[str, ...]:
        """What was set aside when it was opened."""
        return self._notes

    def append(self, kind: str, body: Mapping[str, Any], at: int) -> Record:
        """Write a record with one write and make it durable (fdatasync). Blocks for as long as the disk takes.

        UsageError if it cannot be a record. HostError if it cannot be kept: a line half written is taken back.
        """
        record = follow(self._head, at, kind, body)
        if self._descriptor is None:
            raise HostError(f"{self._path}: the journal is closed; open it again")
        try:
            self._check(self._descriptor)
            self._write(self._descriptor, encode(record))
        except OSError as error:
            raise self._failed(f"{kind!r} cannot be recorded", error) from None
        self._head = record.head
        return record

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _take_up(self, descriptor: int) -> Head:
        """Set aside a torn last line, and return the head of what is whole."""
        self._size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, 3 * MOST_BYTES, max(0, self._size - 3 * MOST_BYTES))
        torn = tail[tail.rfind(b"\n") + 1 :]
        if len(torn) >= MOST_BYTES:
            raise self._damaged(f"no line ends in its last {len(torn)} bytes")
        if torn:
            self._set_aside(descriptor, torn)
        lines = tail[: len(tail) - len(torn)].splitlines(keepends=True)[-2:]
        if not lines:
            return START
        try:
            previous = decode(lines[0]).head if len(lines) > 1 else START
            record = decode(lines[-1])
        except UsageError as error:
            raise self._damaged(f"in one of its last two lines, {error}") from None
        if (record.seq, record.previous) != (previous.seq + 1, previous.hash):
            raise self._damaged(f"record {record.seq} does not follow from record {previous.seq}")
        return record.head

    def _set_aside(self, descriptor: int, torn: bytes) -> None:
        where = _unused(f"{self._path}.torn-")
        handle = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        self._size -= len(torn)
        os.ftruncate(descriptor, self._size)
        os.fsync(descriptor)
        self._notes = (
            f"{self._path}: its last line was torn, as by a crash in the middle of writing; "
            f"those {len(torn)} bytes are now in {where}",
        )

    def _check(self, descriptor: int) -> None:
        """Refuse if the file is no longer what this process left it as: no record may go where nobody finds it."""
        status = os.fstat(descriptor)
        if not status.st_nlink:
            raise HostError(f"{self._path}: the journal was deleted under the scheduler; put it back, then start anew")
        if status.st_size != self._size:
            raise HostError(
                f"{self._path}: somebody else changed the journal ({status.st_size} bytes, not {self._size}); "
                "find out who, then start anew"
            )

    def _write(self, descriptor: int, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):  # the rest of a short write tells why it was short
                written += os.write(descriptor, line[written:])
            os.fdatasync(descriptor)
        except OSError:
            self._take_back(descriptor)
            raise
        self._size += len(line)

    def _take_back(self, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, self._size)
            os.fdatasync(descriptor)
        except OSError:
            # Whether the line is there is unknown now: looking at the file anew is the only way to go on.
            self.close()

    def _failed(self, what: str, error: OSError) -> HostError:
        return HostError(f"{self._path}: journal: {what}: {error.strerror}; make room or give access, then try again")

    def _damaged(self, why: str) -> HostError:
        return HostError(
            f"{self._path}: the journal's end is damaged: {why}; "
            "keep it elsewhere as evidence and start anew, which begins a new journal"
        )


def _unused(stem: str) -> str:
    number = 1
    while os.path.lexists(f"{stem}{number}"):
        number += 1
    return f"{stem}{number}"


def _sync_directory(path: Path) -> None:
    """Make a new file's name durable."""
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

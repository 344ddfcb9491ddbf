"""The journal on a disk: one writer, and nothing is appended before what was appended is durable.

A journal of some size is set aside as ``PATH.NUMBER``, by the number of its last record, and goes on at PATH: the
first record there has the hash of the last one of the file before.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.core.journal import MOST_BYTES, START, Head, Record, decode, encode, follow
from orchestrator.errors import HostError, UsageError

ROTATE_AT = 64 << 20
"""Bytes of a journal's file before another one is begun."""

_DIGITS = 12  # of a record's number in the name of a file that was set aside
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of fallocate(2)

Protect = Callable[[int, bool], str]
"""Has a file take nothing but appends, or anything again; returns why not, if that cannot be had."""


def unprotected(_descriptor: int, _wanted: bool) -> str:
    """Protect nothing."""
    return ""


class JournalFile:
    """The journal at `path`, which is made if it is not there; its owner alone may read it.

    A last line that was torn by a crash in the middle of writing is moved into ``PATH.torn-N``, and `notes` says so: no
    append of it has returned. Only the last two records are looked at; `core.journal.verify` looks at all. HostError if
    they are not as they were written, or if the file cannot be opened.

    `protect` keeps others from doing anything but append. `reserve` bytes are kept on the disk for what is still to
    come, whatever else fills it; `refill` has so many there again.
    """

    def __init__(
        self, path: Path, protect: Protect = unprotected, *, rotate_at: int = ROTATE_AT, reserve: int = 0
    ) -> None:
        self._path = path
        self._protect = protect
        self._rotate_at = rotate_at
        self._reserve = reserve
        self._notes: tuple[str, ...] = ()
        self._descriptor: int | None = None
        try:
            descriptor = _open(path)
        except OSError as error:
            raise self._failed("cannot be opened", error) from None
        try:
            self._head = self._take_up(descriptor)
            _sync_directory(path)
            protect(descriptor, True)
        except OSError as error:
            os.close(descriptor)
            raise self._failed("cannot be read", error) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self.refill()

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
        line = encode(record)
        try:
            self._check(self._descriptor)
            if self._size and self._size + len(line) > self._rotate_at:
                self._descriptor = self._rotate(self._descriptor)
            self._write(self._descriptor, line)
        except OSError as error:
            raise self._failed(f"{kind!r} cannot be recorded", error) from None
        self._head = record.head
        return record

    def refill(self) -> str:
        """Have the reserve on the disk as large as it is to be; say why if that cannot be had now."""
        if not self._reserve or self._descriptor is None:
            return ""
        libc = ctypes.CDLL(None, use_errno=True)
        offset, length = ctypes.c_int64(self._size), ctypes.c_int64(self._reserve)
        if libc.fallocate(self._descriptor, _KEEP_SIZE, offset, length) == 0:
            return ""
        return os.strerror(ctypes.get_errno())

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
        try:
            previous = decode(lines[0]).head if len(lines) > 1 else self._before()
            record = decode(lines[-1]) if lines else None
        except UsageError as error:
            raise self._damaged(f"in one of its last two lines, {error}") from None
        if record is None:
            return previous
        if (record.seq, record.previous) != (previous.seq + 1, previous.hash):
            raise self._damaged(f"record {record.seq} does not follow from record {previous.seq}")
        return record.head

    def _before(self) -> Head:
        """Return the head of what was set aside before."""
        aside = segments(self._path)[:-1]
        if not aside:
            return START
        with aside[-1].open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_BYTES))
            return decode(file.read().splitlines(keepends=True)[-1]).head

    def _set_aside(self, descriptor: int, torn: bytes) -> None:
        where = _unused(f"{self._path}.torn-")
        handle = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        self._size -= len(torn)
        with self._free(descriptor):
            os.ftruncate(descriptor, self._size)
        os.fsync(descriptor)
        self._notes = (
            f"{self._path}: its last line was torn, as by a crash in the middle of writing; "
            f"those {len(torn)} bytes are now in {where}",
        )

    def _rotate(self, descriptor: int) -> int:
        """Set the file aside, and return a new one's descriptor; after an OSError all is as before."""
        beginning = Path(f"{self._path}.new")
        beginning.unlink(missing_ok=True)
        new = _open(beginning)
        try:
            with self._free(descriptor):
                self._path.rename(f"{self._path}.{self._head.seq:0{_DIGITS}}")
            beginning.rename(self._path)
            _sync_directory(self._path)
        except OSError:
            os.close(new)
            if not self._path.exists():
                self.close()  # where it goes on is found when it is opened anew
            raise
        self._protect(new, True)
        os.close(descriptor)
        self._size = 0
        return new

    @contextmanager
    def _free(self, descriptor: int) -> Iterator[None]:
        """Let the file be cut or renamed meanwhile."""
        self._protect(descriptor, False)
        try:
            yield
        finally:
            self._protect(descriptor, True)

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
            with self._free(descriptor):
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


def segments(path: Path) -> list[Path]:
    """Return the files of the journal at `path`, in the order of their records; the last one is that at `path`."""
    stem = f"{path.name}."
    aside = [each for each in path.parent.glob(f"{path.name}.*") if each.name.removeprefix(stem).isdigit()]
    return [*sorted(aside), path]


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


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

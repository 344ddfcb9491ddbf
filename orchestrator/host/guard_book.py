"""What the guard has done, read from its journal as it grows: who starts guests goes by it, and never waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.emergency import Standing
from orchestrator.core.journal import Head, Record
from orchestrator.core.journal_lines import records_in


class GuardBook:
    """The guard's journal at `path`, which may not be there. `standing` is what holds, as of the last `news`.

    `reserve` is the file in which the guard keeps records that the disk has not taken yet.
    """

    def __init__(self, path: Path, reserve: Path | None = None) -> None:
        self._path, self._reserve = path, reserve
        self._file = self._reserved = (0, 0, 0)
        self._read = 0
        self._rest = b""
        self._origin = ""  # the hash of the first record
        self.standing = Standing()
        self.head: Head | None = None

    def reader(self) -> GuardBook:
        """Return another reader of the same files, to whom everything is new."""
        return GuardBook(self._path, self._reserve)

    def news(self) -> list[Record]:
        """Return the records that are new since the last call, all of them at first.

        Where nothing is new this costs two system calls. A line that is no record is left out: `journal verify` names
        it. Growth: linear in what is new.
        """
        reserved = self._from_reserve()  # first: what is taken out of it stands in the journal by then
        found = [record for record in self._from_journal() if self._takes(record)]
        return found + [record for record in reserved if self._follows(record) and self._takes(record)]

    def barred(self, user: str, now: int) -> str:
        """Say why no guest of this user is to be started; empty if one may be. `now` is nanoseconds since 1970."""
        self.news()
        if self.standing.lockdown is not None:
            return f"lockdown by the emergency console: {self.standing.lockdown}"
        ban = self.standing.ban(user, now)
        return "" if ban is None else f"{user} is banned by the emergency console: {ban.reason}"

    def _takes(self, record: Record) -> bool:
        """Note a record; False if it is known. Another first one begins another journal."""
        if record.seq == 1 and record.hash != self._origin:
            self.standing, self.head, self._origin = Standing(), None, record.hash
        if self.head is not None and (record.seq < self.head.seq or record.head == self.head):
            return False
        self.standing, self.head = self.standing.after(record), record.head
        return True

    def _follows(self, record: Record) -> bool:
        return self.head is None or (record.seq, record.previous) == (self.head.seq + 1, self.head.hash)

    def _from_journal(self) -> Iterator[Record]:
        """Give the records that have been written since the last look, and some that are known."""
        try:
            status = self._path.stat()
        except OSError:
            return
        file = (status.st_dev, status.st_ino, 0)
        if file != self._file:
            yield from self._set_aside()
        if file != self._file or status.st_size < self._read:
            self._file, self._read, self._rest = file, 0, b""
        if status.st_size > self._read:
            yield from records_in(self._new_lines())

    def _set_aside(self) -> Iterator[Record]:
        """Give the records of files that were set aside since the last look: a file's name ends with its last one's."""
        seen = 0 if self.head is None else self.head.seq
        for path in sorted(self._path.parent.glob(f"{self._path.name}.*")):
            number = path.suffix[1:]
            if number.isdigit() and int(number) > seen:
                yield from records_in(_lines(path))

    def _from_reserve(self) -> list[Record]:
        if self._reserve is None:
            return []
        try:
            status = self._reserve.stat()
        except OSError:
            return []
        reserved = (status.st_ino, status.st_size, status.st_mtime_ns)
        if reserved == self._reserved:
            return []
        self._reserved = reserved
        return records_in(_lines(self._reserve))

    def _new_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


def last_records(path: Path, most: int) -> list[Record]:
    """Return the last records in a journal's file, at most so many; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most * 4096))
            lines = file.read().splitlines()[-most:]
    except OSError:
        return []
    return records_in(lines)


def _lines(path: Path) -> list[bytes]:
    """Return a file's whole lines; none if it cannot be read."""
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except OSError:
        return []

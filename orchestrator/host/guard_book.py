"""What the guard has done, read from its journal as it grows: who starts guests goes by it, and never waits for it."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.core.emergency import Standing
from orchestrator.core.journal import Head, Record, decode
from orchestrator.errors import UsageError


class GuardBook:
    """The guard's journal at `path`, which may not be there. `standing` is what holds, as of the last `news`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = (0, 0)
        self._read = 0
        self._rest = b""
        self.standing = Standing()
        self.head: Head | None = None

    def news(self) -> list[Record]:
        """Return the records that are new since the last call, all of them at first.

        Where nothing is new this costs a system call. A line that is no record is left out: `journal verify` names it.
        """
        try:
            status = self._path.stat()
        except OSError:
            return []
        file = (status.st_dev, status.st_ino)
        if file != self._file or status.st_size < self._read:
            self._file, self._read, self._rest, self.standing = file, 0, b"", Standing()
        if status.st_size == self._read:
            return []
        found = []
        for line in self._new_lines():
            try:
                record = decode(line)
            except UsageError:
                continue
            self.standing, self.head = self.standing.after(record), record.head
            found.append(record)
        return found

    def barred(self, user: str, now: int) -> str:
        """Say why no guest of this user is to be started; empty if one may be. `now` is nanoseconds since 1970."""
        self.news()
        if self.standing.lockdown is not None:
            return f"lockdown by the emergency console: {self.standing.lockdown}"
        ban = self.standing.ban(user, now)
        return "" if ban is None else f"{user} is banned by the emergency console: {ban.reason}"

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
    found = []
    for line in lines:
        try:
            found.append(decode(line))
        except UsageError:
            continue
    return found

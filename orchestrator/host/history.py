"""What a daemon has written down in its state directory, for whoever looks back: read, and never written to.

A log that was set aside comes before the one that is written. Lines of which nothing can be made come out as None; the
last line of a log may be half written, and does too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.core.journal import Record, decode
from orchestrator.errors import HostError, UsageError

_SECOND = 10**9


class History:
    """The logs below a state directory. Growth: linear in the bytes that are read, in the memory of one line."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def exists(self) -> bool:
        """Return whether a daemon has ever written here. HostError if that cannot be seen."""
        try:
            return bool(list(self._files("logs/events.jsonl", 0)))
        except OSError as error:
            raise self._failed(error) from None

    def events(self) -> Iterator[Mapping[str, Any] | None]:
        """Yield the records of the event log, all that are kept: a turn may have begun long ago."""
        return self._records("logs/events.jsonl", 0)

    def samples(self, since: int) -> Iterator[Mapping[str, Any] | None]:
        """Yield the samples, without those files that were last written before `since` (nanoseconds since 1970)."""
        return self._records("logs/metrics.jsonl", since)

    def acts(self, files: Iterable[Path], since: int) -> Iterator[Record | None]:
        """Yield the records of a journal's files, oldest first, that are not older than `since`."""
        for line in self._lines([path for path in files if path.exists() and _is_young(path, since)]):
            try:
                record = decode(line)
            except UsageError:
                yield None
                continue
            if record.at >= since:
                yield record

    def _records(self, name: str, since: int) -> Iterator[Mapping[str, Any] | None]:
        decoder = msgspec.json.Decoder(dict[str, Any])
        for line in self._lines(self._files(name, since)):
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError:
                yield None

    def _lines(self, files: Iterable[Path]) -> Iterator[bytes]:
        try:
            for path in files:
                with path.open("rb") as file:
                    yield from file
        except OSError as error:
            raise self._failed(error) from None

    def _files(self, name: str, since: int) -> Iterator[Path]:
        self._state.stat()  # which says why it cannot be looked into, where `exists` would say nothing
        for path in (self._state / f"{name}.1", self._state / name):
            if os.access(path.parent, os.X_OK) and path.exists() and _is_young(path, since):
                yield path

    def _failed(self, error: OSError) -> HostError:
        return HostError(
            f"{error.filename or self._state}: cannot be read: {error.strerror}; what happened is for root's eyes, and "
            "for those of the user as whom the daemon runs; set ORCHESTRATOR_STATE_DIR if it is elsewhere"
        )


def _is_young(path: Path, since: int) -> bool:
    return path.stat().st_mtime_ns >= since - _SECOND

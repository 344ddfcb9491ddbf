"""The journal in memory, its records real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.journal import START, Head, Record, follow
from orchestrator.errors import HostError


class FakeJournal:
    """`records` is what it holds; while `full` is set, the disk is."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.notes: tuple[str, ...] = ()
        self.full = False
        self._closed = False

    @property
    def head(self) -> Head:
        return self.records[-1].head if self.records else START

    def append(self, kind: str, body: Mapping[str, Any], at: int) -> Record:
        record = follow(self.head, at, kind, body)
        if self._closed:
            raise HostError("journal: closed; open it again")
        if self.full:
            raise HostError(f"journal: {kind!r} cannot be recorded: No space left on device; make room, then try again")
        self.records.append(record)
        return record

    def close(self) -> None:
        self._closed = True

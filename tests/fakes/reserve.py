"""The guard's reserve, in a list."""

from __future__ import annotations

from orchestrator.core.journal import Record
from orchestrator.core.journal_lines import records_in
from orchestrator.errors import HostError


class FakeReserve:
    """Has room for so many bytes, for half of them if it is not urgent."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.lines: list[bytes] = []
        self.cleared = 0
        self._room = room

    def records(self) -> list[Record]:
        return records_in(self.lines)

    def add(self, line: bytes, *, urgent: bool) -> None:
        if sum(map(len, self.lines)) + len(line) > (self._room if urgent else self._room // 2):
            raise HostError("the reserve is used up, too")
        self.lines.append(line)

    def clear(self) -> None:
        self.lines.clear()
        self.cleared += 1

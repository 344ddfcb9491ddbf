"""Which guest had which core when, as bars for a chart; `drawing` makes a picture of them.

Only the first cores are charted, from the beginning until there are as many bars as can be told apart in a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

MOST_CORES = 64
MOST_BARS = 4000
MOST_BARS_A_ROW = 120  # more would be too narrow to be seen


class BarKind(StrEnum):
    """What a bar says of its cores: a shared guest's turn, an exclusive guest, a hand-over, or nobody may have them."""

    TURN = "turn"
    EXCLUSIVE = "exclusive"
    HANDOVER = "hand-over"
    QUARANTINE = "quarantine"


class Bar(NamedTuple):
    """One guest on `rows` charted cores side by side, from row `row` on; times are in nanoseconds."""

    kind: BarKind
    guest: str
    owner: str
    row: int
    rows: int
    begin: int
    end: int


class Chart:
    """The bars of the first `MOST_CORES` of a pool's cores, ascending, of a story that lasts until `end`.

    On a core no bar comes before an earlier one, but for hand-overs, which are told of as they begin. Once there are as
    many as can be seen, only those that began before that moment are still taken: nothing that is shown is incomplete.
    """

    def __init__(self, title: str, cores: Sequence[int], end: int) -> None:
        self.title = title
        self.duration = end
        self.pool_size = len(cores)
        self.cores = tuple(cores[:MOST_CORES])
        self._rows = {core: row for row, core in enumerate(self.cores)}
        self._bars: list[Bar] = []
        self._end = end
        self._most = min(MOST_BARS, MOST_BARS_A_ROW * len(self.cores))
        self._closed = False
        self._open = set(self.cores)

    @property
    def full(self) -> bool:
        """Whether every further bar would be left out, since each core is known up to the end of what is charted."""
        return not self._open

    @property
    def end(self) -> int:
        """The moment up to which is charted."""
        return self._end

    def bar(self, guest: str, owner: str, cores: Sequence[int], begin: int, end: int, kind: BarKind) -> None:
        """Take in one interval; of no consequence if it is beyond what is charted. Growth: the cores."""
        if end >= self._end and kind is not BarKind.HANDOVER:
            self._open.difference_update(cores)
        if begin >= self._end or begin >= end:
            return
        for row, rows in self._runs(cores):
            self._bars.append(Bar(kind, guest, owner, row, rows, begin, end))
        if len(self._bars) >= self._most and not self._closed:
            self._closed = True
            self._end = min(end, self._end)

    def bars(self) -> Iterator[Bar]:
        """Yield the bars as they came, cut at the end of what is charted."""
        for bar in self._bars:
            if bar.begin < self._end:
                yield bar._replace(end=min(bar.end, self._end))

    def _runs(self, cores: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield the first row and the number of rows of each run of cores side by side."""
        rows = sorted(self._rows[core] for core in cores if core in self._rows)
        begin = 0
        for place in range(1, len(rows) + 1):
            if place == len(rows) or rows[place] != rows[place - 1] + 1:
                yield rows[begin], place - begin
                begin = place

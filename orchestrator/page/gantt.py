"""Who held which core when, as SVG. Lengths are in pixels.

Every turn is a bar as long as there are not too many to be told apart; else each core is shown by columns, in which
each guest is as tall as its part of that time is, and the last turns are drawn one by one in a second picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.charts import ticks
from orchestrator.core.chronicle import Turn
from orchestrator.core.durations import about
from orchestrator.page.words import tag, text, when

MOST_BARS = 3000
"""How many bars a picture has at most; one of columns has more only if there are hundreds of cores."""
CLOSE_UP = 800
"""How many bars the second picture has."""

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1200, 44, 24, 6, 24
_PLOT = _WIDTH - _LEFT - _RIGHT
_TALL = 30
_LETTER = 7.2  # about as wide as a letter of a label is
_THINNEST = 0.5
_COLUMNS = 240


class Lanes:
    """A lane for each core and an axis in time below, from `begin` to `end`; `looks` are those of guests."""

    def __init__(self, cores: Sequence[int], begin: int, end: int, looks: Mapping[str, int]) -> None:
        self._rows = {core: row for row, core in enumerate(cores)}
        self._begin, self._end = begin, max(begin + 1, end)
        self._looks = looks

    def turns(self, turns: Sequence[Turn], title: str) -> str:
        """Return the picture of every turn."""
        return self._picture("".join(self._bar(turn, core) for turn in turns for core in turn.cores), title)

    def columns(self, turns: Sequence[Turn], title: str) -> str:
        """Return the picture of what part of each moment each guest had; guests are always in the same order."""
        count = _COLUMNS
        parts = self._parts(turns, count)
        while count > 40 and sum(map(len, parts.values())) > MOST_BARS:
            count //= 2
            parts = self._parts(turns, count)
        return self._picture("".join(self._stacks(parts, count)), title)

    def _bar(self, turn: Turn, core: int) -> str:
        x, y = self._x(turn.begin), self._y(core)
        width = max(_THINNEST, self._x(turn.end) - x)
        look, kind = self._looks.get(turn.guest, 0), "turn" if turn.shared else "exclusive"
        said = (
            f"{turn.guest} ({turn.owner or 'owner unknown'}), {kind}\ncore {core}\n{when(turn.begin)} to "
            f"{when(turn.end)} ({about(turn.end - turn.begin)})"
        )
        style = f"l{look}" if turn.shared else f"l{look} x"
        rect = tag("rect", tag("title", text(said)), class_=style, x=x, y=y + 1, width=width, height=_TALL - 2)
        label = ""
        if width > len(turn.guest) * _LETTER + 8:
            label = tag("text", text(turn.guest), class_=f"b o{look}", x=x + 4, y=y + _TALL / 2 + 4)
        return tag("g", rect + label, data_g=str(look))

    def _parts(self, turns: Sequence[Turn], count: int) -> dict[tuple[int, int], dict[str, float]]:
        """Return for each core and column the part of that time that each guest had."""
        width = (self._end - self._begin) / count
        parts: dict[tuple[int, int], dict[str, float]] = {}
        for turn in turns:
            first = int((turn.begin - self._begin) / width)
            for column in range(first, min(count, int((turn.end - self._begin) / width) + 1)):
                start = self._begin + column * width
                part = (min(turn.end, start + width) - max(turn.begin, start)) / width
                if part > 0:
                    for core in turn.cores:
                        cell = parts.setdefault((core, column), {})
                        cell[turn.guest] = cell.get(turn.guest, 0.0) + part
        return parts

    def _stacks(self, parts: Mapping[tuple[int, int], Mapping[str, float]], count: int) -> Iterator[str]:
        width = (self._end - self._begin) / count
        for (core, column), cell in sorted(parts.items()):
            y, start = self._y(core) + 1, int(self._begin + column * width)
            for guest, part in sorted(cell.items()):
                tall = (_TALL - 2) * min(1.0, part)
                said = f"{guest}, core {core}\n{part:.0%} of {about(int(width))} from {when(start)}"
                look = self._looks.get(guest, 0)
                rect = tag(
                    "rect",
                    tag("title", text(said)),
                    class_=f"l{look}",
                    x=self._x(start),
                    y=y,
                    width=_PLOT / count + 0.2,  # no hair of the lane between two columns
                    height=max(_THINNEST, tall),
                )
                yield tag("g", rect, data_g=str(look))
                y += tall

    def _picture(self, bars: str, title: str) -> str:
        bottom = _TOP + _TALL * len(self._rows)
        lanes = "".join(
            tag("rect", class_="lane", x=_LEFT, y=self._y(core) + 1, width=_PLOT, height=_TALL - 2)
            + tag("text", text(core), class_="c", x=_LEFT - 8, y=self._y(core) + _TALL / 2 + 4)
            for core in self._rows
        )
        axis = "".join(
            tag("line", class_="tick", x1=x, x2=x, y1=_TOP, y2=bottom + 4)
            + tag("text", text(said), class_="m", x=x, y=bottom + 18)
            for moment, said in ticks(self._end - self._begin)
            for x in (self._x(self._begin + moment),)
        )
        inside = lanes + axis + bars
        box = f"0 0 {_WIDTH} {bottom + _BOTTOM}"
        return tag("svg", inside, viewBox=box, role="img", aria_label=title, class_="gantt")

    def _x(self, moment: int) -> float:
        return _LEFT + _PLOT * (moment - self._begin) / (self._end - self._begin)

    def _y(self, core: int) -> float:
        return _TOP + _TALL * self._rows[core]

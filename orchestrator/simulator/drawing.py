"""A chart as one SVG that needs nothing else: no script, no font, no file. Fit for light and dark pages.

Colours are those of M. Okabe and K. Ito (Color Universal Design, 2008), which colour-blind people can tell apart;
vermilion is kept for quarantine. Owners beyond them get the same colours with a pattern. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lxml import etree

from orchestrator.core.charts import COLOURS, PATTERNS, WARNING, ticks
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.durations import Duration, about
from orchestrator.simulator.gantt import Bar, BarKind, Chart

_STYLE = f"""
svg {{ background: #ffffff }}
text {{ font: 12px system-ui, sans-serif; fill: #1b1f24 }}
.title {{ font-size: 17px; font-weight: 600 }}
.core {{ font-size: 9px; text-anchor: end }}
.time {{ text-anchor: middle }}
.page {{ fill: #ffffff }}
.lane {{ fill: #f0f1f3 }}
.tick {{ stroke: #c8ccd2 }}
.handover {{ fill: #8b929b }}
.exclusive {{ stroke: #1b1f24; stroke-width: 1.5 }}
.quarantine {{ fill: url(#quarantine); stroke: {WARNING} }}
@media (prefers-color-scheme: dark) {{
  svg {{ background: #14171c }}
  text {{ fill: #e6e8eb }}
  .page {{ fill: #14171c }}
  .lane {{ fill: #20252c }}
  .tick {{ stroke: #434b55 }}
  .exclusive {{ stroke: #ffffff }}
}}
"""
_CLASSES = {
    BarKind.TURN: "turn",
    BarKind.EXCLUSIVE: "exclusive",
    BarKind.HANDOVER: "handover",
    BarKind.QUARANTINE: "quarantine",
}
_LEGEND = {
    BarKind.HANDOVER: "hand-over",
    BarKind.EXCLUSIVE: "exclusive guest (outlined)",
    BarKind.QUARANTINE: "quarantined cores",
}

_WIDTH, _LEFT, _RIGHT, _TOP, _AXIS = 1200, 64, 24, 66, 34
_PLOT = _WIDTH - _LEFT - _RIGHT
_THINNEST = 0.4  # what is shorter is still seen
_ENTRY, _LINE = 185, 20  # the place of one entry of the legend
_MOST_OWNERS = len(COLOURS) * len(PATTERNS)
_MOST_LETTERS = 24
_SECOND = 10**9

_Element = Any  # lxml has no types


class _Frame(NamedTuple):
    """Where moments and rows are."""

    end: int
    tall: float
    rows: int

    def x(self, moment: int) -> float:
        return _LEFT + _PLOT * moment / self.end

    def y(self, row: int) -> float:
        return _TOP + self.tall * row


def draw(chart: Chart) -> bytes:
    """Return the SVG, in UTF-8. Growth: the bars."""
    bars = list(chart.bars())
    owners = list(dict.fromkeys(bar.owner for bar in bars))
    looks = {owner: place % _MOST_OWNERS for place, owner in enumerate(owners)}
    rows = len(chart.cores)
    frame = _Frame(max(1, chart.end), min(24.0, max(10.0, 320 / max(1, rows))), rows)
    entries = list(_entries(owners, {bar.kind for bar in bars}))
    below = frame.y(rows) + _AXIS
    height = below + _LINE * -(-len(entries) // (_PLOT // _ENTRY)) + 12

    svg = etree.Element("svg", nsmap={None: "http://www.w3.org/2000/svg"})
    svg.attrib.update({"viewBox": f"0 0 {_WIDTH} {height:g}", "role": "img", "aria-label": chart.title})
    _add(svg, "style", _STYLE)
    definitions = _add(svg, "defs")
    _define(definitions, "quarantine", "none", WARNING, "M2,-2 l8,8 M-2,2 l8,8")
    for look in sorted(set(looks.values())):
        if look >= len(COLOURS):
            _define(definitions, f"look{look}", *COLOURS[look % len(COLOURS)], PATTERNS[look // len(COLOURS)])
    _add(svg, "rect", class_="page", width=_WIDTH, height=height)
    _add(svg, "text", chart.title, class_="title", x=_LEFT, y=28)
    _add(svg, "text", _subtitle(chart), x=_LEFT, y=50)
    _draw_frame(svg, frame, chart.cores)
    _draw_bars(svg, frame, bars, looks, chart.cores)
    _draw_legend(svg, entries, looks, below)
    return bytes(etree.tostring(svg, xml_declaration=True, encoding="UTF-8"))


def _subtitle(chart: Chart) -> str:
    whole = str(Duration(chart.duration))
    when = f"0 s to {whole}" if chart.end == chart.duration else f"0 s to {about(chart.end)} of {whole}"
    of = f" of {chart.pool_size:,} in the pool" if chart.pool_size > len(chart.cores) else ""
    return f"{when}; cores {format_cpulist(chart.cores)}{of}"


def _draw_frame(svg: _Element, frame: _Frame, cores: Sequence[int]) -> None:
    for row, core in enumerate(cores):
        y = frame.y(row)
        _add(svg, "rect", class_="lane", x=_LEFT, y=y + 0.5, width=_PLOT, height=frame.tall - 1)
        _add(svg, "text", str(core), class_="core", x=_LEFT - 6, y=y + frame.tall / 2 + 3)
    bottom = frame.y(frame.rows)
    for moment, text in ticks(frame.end):
        x = frame.x(moment)
        _add(svg, "line", class_="tick", x1=x, x2=x, y1=_TOP - 4, y2=bottom + 5)
        _add(svg, "text", text, class_="time", x=x, y=bottom + 18)


def _draw_bars(svg: _Element, frame: _Frame, bars: Sequence[Bar], looks: dict[str, int], cores: Sequence[int]) -> None:
    layers = {kind: _add(svg, "g", class_=_CLASSES[kind]) for kind in BarKind}
    groups: dict[tuple[BarKind, str], _Element] = {}
    for bar in bars:
        group = layers[bar.kind]
        if bar.kind in (BarKind.TURN, BarKind.EXCLUSIVE):
            key = (bar.kind, bar.owner)
            if key not in groups:
                groups[key] = _add(group, "g", fill=_fill(looks[bar.owner]))
            group = groups[key]
        width = max(_THINNEST, frame.x(bar.end) - frame.x(bar.begin))
        rect = _add(
            group, "rect", x=frame.x(bar.begin), y=frame.y(bar.row) + 1, width=width, height=frame.tall * bar.rows - 2
        )
        _add(rect, "title", _tooltip(bar, cores))


def _tooltip(bar: Bar, cores: Sequence[int]) -> str:
    where = format_cpulist(cores[bar.row : bar.row + bar.rows])
    when = f"{bar.begin / _SECOND:.6f} s to {bar.end / _SECOND:.6f} s ({about(bar.end - bar.begin)})"
    return f"{bar.guest} ({bar.owner}), {bar.kind}\ncore{'s' if bar.rows > 1 else ''} {where}\n{when}"


def _entries(owners: Sequence[str], kinds: set[BarKind]) -> Iterator[tuple[str, BarKind | str | None]]:
    """Yield the text of each entry of the legend, and whose look it has."""
    for owner in owners[:_MOST_OWNERS]:
        yield owner, owner
    if len(owners) > _MOST_OWNERS:
        yield f"and {len(owners) - _MOST_OWNERS} more owners", None
    for kind, text in _LEGEND.items():
        if kind in kinds:
            yield text, kind


def _draw_legend(
    svg: _Element, entries: Sequence[tuple[str, BarKind | str | None]], looks: dict[str, int], below: float
) -> None:
    across = _PLOT // _ENTRY
    for place, (text, key) in enumerate(entries):
        x, y = _LEFT + place % across * _ENTRY, below + place // across * _LINE
        if isinstance(key, BarKind):
            sample = {"class_": _CLASSES[key]} | ({"fill": "none"} if key is BarKind.EXCLUSIVE else {})
            _add(svg, "rect", x=x, y=y, width=16, height=12, **sample)
        elif key is not None:
            _add(svg, "rect", x=x, y=y, width=16, height=12, fill=_fill(looks[key]))
        shown = text if len(text) <= _MOST_LETTERS or key != text else f"{text[: _MOST_LETTERS - 1]}…"
        _add(svg, "text", shown, x=x + (22 if key else 0), y=y + 10.5)


def _fill(look: int) -> str:
    return COLOURS[look][0] if look < len(COLOURS) else f"url(#look{look})"


def _define(definitions: _Element, name: str, colour: str, stroke: str, path: str) -> None:
    pattern = _add(definitions, "pattern", id=name, width=8, height=8, patternUnits="userSpaceOnUse")
    if colour != "none":
        _add(pattern, "rect", width=8, height=8, fill=colour)
    _add(pattern, "path", d=path, stroke=stroke, stroke_width=1.6, fill="none")


def _add(parent: _Element, tag: str, text: str | None = None, **attributes: str | float) -> _Element:
    """Append an element; in names of attributes an underscore stands for a hyphen, and is dropped at the end."""
    child = etree.SubElement(parent, tag)
    child.text = text
    for name, value in attributes.items():
        spelled = name.rstrip("_").replace("_", "-")
        child.set(spelled, value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip("."))
    return child

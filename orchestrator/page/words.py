"""Pieces of HTML and SVG, and how times and amounts are said. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from orchestrator.core.charts import COLOURS, PATTERNS
from orchestrator.core.durations import about
from orchestrator.core.model import Size

LOOKS = len(COLOURS) * len(PATTERNS)
"""So many guests can be told apart; the next one looks like the first."""


def tag(name: str, content: str = "", /, **attributes: str | float) -> str:
    """Return an element around content that is HTML already; an underscore in a name stands for a hyphen."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else _figure(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}>{content}</{name}>"


def text(value: object) -> str:
    """Return a value as HTML text."""
    return escape(str(value))


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()
) -> str:
    """Return a table of cells that are HTML already; those columns whose numbers are given are figures."""
    head = "".join(tag("th", text(column), scope="col") for column in columns)
    body = "".join(
        tag("tr", "".join(tag("td", cell, class_="n" if place in numbers else "t") for place, cell in enumerate(row)))
        for row in rows
    )
    inside = tag("caption", text(caption)) + tag("thead", tag("tr", head)) + tag("tbody", body)
    return tag("div", tag("table", inside), class_="scroll", tabindex=0, role="region", aria_label=caption)


def when(nanoseconds: int) -> str:
    """Return a moment in UTC, to the millisecond."""
    return datetime.fromtimestamp(nanoseconds / 10**9, UTC).strftime("%H:%M:%S.%f")[:-3]


def day_and_time(nanoseconds: int) -> str:
    """Return a moment in UTC, with its day."""
    return datetime.fromtimestamp(nanoseconds / 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def amount(value: float, unit: str) -> str:
    """Return what is used of a quota, as people write it."""
    if unit == "bytes":
        return str(Size(int(value)))
    return about(int(value)) if unit == "core-nanoseconds" else f"{value:g}"


def percent(part: float) -> str:
    """Return a part of 1 in percent."""
    return f"{part:.1%}" if part < 0.9995 else f"{part:.0%}"


def look_styles() -> str:
    """Return the style of each look, as a bar and as a label on it, and of a sample in HTML."""
    lines = []
    for look in range(LOOKS):
        colour, on_it = COLOURS[look % len(COLOURS)]
        fill = colour if look < len(COLOURS) else f"url(#p{look})"
        lines.append(f".l{look}{{fill:{fill}}} .o{look}{{fill:{on_it}}}")
    return "\n".join(lines)


def pattern_definitions() -> str:
    """Return the patterns of the looks that have one."""
    found = []
    for look in range(len(COLOURS), LOOKS):
        colour, stroke = COLOURS[look % len(COLOURS)]
        inside = tag("rect", width=8, height=8, fill=colour) + tag(
            "path", d=PATTERNS[look // len(COLOURS)], stroke=stroke, stroke_width=1.6, fill="none"
        )
        found.append(tag("pattern", inside, id=f"p{look}", width=8, height=8, patternUnits="userSpaceOnUse"))
    return tag("defs", "".join(found))


def sample(look: int) -> str:
    """Return a small sample of a look."""
    inside = tag("rect", width=14, height=12, class_=f"l{look}")
    return tag("svg", inside, width=14, height=12, class_="sample", aria_hidden="true")


def _figure(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

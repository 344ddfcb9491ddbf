"""Small pictures of something over time, as SVG: bars from zero, or a line between zero and one. Lengths in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from orchestrator.core.charts import ticks
from orchestrator.page.words import tag, text

_WIDTH, _LEFT, _RIGHT, _TOP, _TALL, _BOTTOM = 580, 64, 24, 10, 130, 24
_PLOT = _WIDTH - _LEFT - _RIGHT


def bars(title: str, length: int, values: Sequence[tuple[float, float, str]], top: str) -> str:
    """Return pairs of values from 0 to 1, the second one within the first, each with what is said of it.

    `length` is how long all of it is, in nanoseconds; `top` is what 1 stands for.
    """
    wide = _PLOT / max(1, len(values))
    drawn = ""
    for place, (outer, inner, said) in enumerate(values):
        for value, style in ((outer, "v"), (inner, "w")):
            tall = _TALL * min(1.0, value)
            drawn += tag(
                "rect",
                tag("title", text(said)),
                class_=style,
                x=_LEFT + place * wide + 1,
                y=_TOP + _TALL - tall,
                width=max(0.5, wide - 2),
                height=tall,
            )
    return _framed(title, length, drawn, top)


def line(title: str, length: int, values: Sequence[float | None], said: Sequence[str]) -> str:
    """Return a line through values from 0 to 1, one for each part of the time, with gaps where there is none."""
    wide = _PLOT / max(1, len(values))
    points = [
        (place, None if value is None else (_LEFT + (place + 0.5) * wide, _TOP + _TALL * (1 - min(1.0, value))))
        for place, value in enumerate(values)
    ]
    drawn = ""
    for known, run in groupby(points, key=lambda point: point[1] is not None):
        if known:
            found = [(place, point) for place, point in run if point is not None]
            drawn += tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for _, (x, y) in found), class_="u")
            drawn += "".join(
                tag("circle", tag("title", text(said[place])), cx=x, cy=y, r=3, class_="d") for place, (x, y) in found
            )
    return _framed(title, length, drawn, "1")


def spark(values: Sequence[float]) -> str:
    """Return a line through values from 0 to 1, small enough for a table."""
    step = 100 / max(1, len(values) - 1)
    points = " ".join(f"{place * step:.1f},{20 - 18 * min(1.0, value):.1f}" for place, value in enumerate(values))
    inside = tag("polyline", points=points, class_="u")
    return tag("svg", inside, viewBox="0 0 100 22", width=100, height=22, aria_hidden="true")


def _framed(title: str, length: int, drawn: str, top: str) -> str:
    bottom = _TOP + _TALL
    frame = "".join(
        tag("line", class_="tick", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y)
        + tag("text", text(said), class_="c", x=_LEFT - 6, y=y + 4)
        for y, said in ((_TOP, top), (bottom, "0"))
    )
    axis = "".join(
        tag("text", text(said), class_="m", x=_LEFT + _PLOT * moment / max(1, length), y=bottom + 18)
        for moment, said in list(ticks(max(1, length)))[::2]
    )
    box = f"0 0 {_WIDTH} {bottom + _BOTTOM}"
    return tag("svg", frame + axis + drawn, viewBox=box, role="img", aria_label=title, class_="curve")

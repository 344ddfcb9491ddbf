"""Plots of measurements as SVG files that need nothing else, fit for light and dark. Lengths are in pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.core.charts import COLOURS
from orchestrator.page.words import tag, text

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 360, 70, 150, 44, 48
_STYLE = """
svg { background: #ffffff } text { font: 12px system-ui, sans-serif; fill: #1b1f24 } .t { font-size: 15px }
.m { text-anchor: middle } .e { text-anchor: end } .r { stroke: #d4d8dd } .p { fill: #ffffff }
@media (prefers-color-scheme: dark) { svg { background: #14171c } text { fill: #e6e8eb } .r { stroke: #39414b }
.p { fill: #14171c } }
"""


def lines(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """Return lines over a logarithmic axis; values go from the least to the largest, some room left."""
    xs = [math.log10(x) for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    room = (high - low or abs(high) or 1.0) * 0.08
    low, high = low - room, high + room

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - left) / ((right - left) or 1.0)
        return _LEFT + along * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - (y - low) / (high - low) * _tall()

    drawn = ""
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)][0]
        spots = [place(*point) for point in points]
        drawn += tag(
            "polyline",
            points=" ".join(f"{x:.1f},{y:.1f}" for x, y in spots),
            fill="none",
            stroke=colour,
            stroke_width=2,
        )
        for (x, y), point in zip(spots, points, strict=True):
            said = f"{name}: {point[1]:.4g} at {point[0]:g}"
            drawn += tag("circle", tag("title", text(said)), cx=x, cy=y, r=4, fill=colour)
        drawn += tag("rect", x=_WIDTH - _RIGHT + 14, y=_TOP + number * 20, width=12, height=12, fill=colour)
        drawn += tag("text", text(name), x=_WIDTH - _RIGHT + 32, y=_TOP + number * 20 + 11)
    for x in sorted({x for points in series.values() for x, _ in points}):
        drawn += tag("text", f"{x:g}", class_="m", x=place(x, low)[0], y=_HEIGHT - _BOTTOM + 18)
    for step in range(5):
        value = low + (high - low) * step / 4
        y = place(10**left, value)[1]
        drawn = tag("line", class_="r", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y) + drawn
        drawn += tag("text", f"{value:.4g}", class_="e", x=_LEFT - 8, y=y + 4)
    return _framed(title, f"{up}, by {across}", drawn, _HEIGHT)


def bars(title: str, what: str, values: Sequence[tuple[str, float]]) -> bytes:
    """Return a bar for each value, from zero, with its figure."""
    most = max((value for _, value in values), default=1.0) or 1.0
    wide, drawn = _WIDTH - 320 - 70, ""
    for number, (name, value) in enumerate(values):
        y = _TOP + 16 + number * 24
        drawn += tag("text", text(name), class_="e", x=312, y=y + 13)
        drawn += tag("rect", x=320, y=y, width=max(1.0, wide * value / most), height=16, fill=COLOURS[0][0])
        drawn += tag("text", f"{value:.3g}", x=328 + wide * value / most, y=y + 13)
    return _framed(title, what, drawn, _TOP + 16 + 24 * len(values) + 36)


def _framed(title: str, what: str, drawn: str, height: int) -> bytes:
    inside = tag("style", _STYLE) + tag("rect", class_="p", width=_WIDTH, height=height)
    inside += tag("text", text(title), class_="t", x=16, y=24) + drawn
    inside += tag("text", text(what), class_="m", x=_WIDTH / 2, y=height - 10)
    box = f"0 0 {_WIDTH} {height}"
    picture = tag("svg", inside, xmlns="http://www.w3.org/2000/svg", viewBox=box, role="img", aria_label=title)
    return picture.encode()


def _tall() -> float:
    return _HEIGHT - _TOP - _BOTTOM

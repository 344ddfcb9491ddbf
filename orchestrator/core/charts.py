"""What all charts share: colours that can be told apart, and moments at which an axis is marked. Values only.

Colours are those of M. Okabe and K. Ito (Color Universal Design, 2008), which colour-blind people can tell apart;
vermilion is kept for what is wrong. Whoever comes after the last colour gets the first one again, with a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator

COLOURS = (
    ("#0072b2", "#ffffff"),
    ("#e69f00", "#3d2b00"),
    ("#56b4e9", "#003350"),
    ("#009e73", "#ffffff"),
    ("#cc79a7", "#3d0a26"),
    ("#f0e442", "#4a4500"),
)
"""Each with what is seen best on it."""
PATTERNS = ("", "M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4", "M0,4 h8", "M4,0 v8", "M2,4 h4 M4,2 v4")
"""Paths over squares of eight, one for each round of owners; the first is plain."""
WARNING = "#d55e00"

_MOST_TICKS = 10
_SECOND, _MINUTE, _HOUR, _DAY = 10**9, 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
_STEPS = (
    *(digit * 10**power for power in range(10) for digit in (1, 2, 5)),
    *(_SECOND * seconds for seconds in (10, 20, 30)),
    *(_MINUTE * minutes for minutes in (1, 2, 5, 10, 20, 30)),
    *(_HOUR * hours for hours in (1, 2, 4, 12, 24)),
)
_TICK_UNITS = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (_SECOND, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))


def ticks(end: int) -> Iterator[tuple[int, str]]:
    """Yield round moments from 0 to `end`, `_MOST_TICKS` steps at most, each with its text; all have one unit."""
    least = -(-end // _MOST_TICKS)
    step = next((step for step in _STEPS if step >= least), -(-least // _DAY) * _DAY)
    # Seconds and less may have a fraction, minutes and more are whole.
    fit = ((size, unit) for size, unit in _TICK_UNITS if step >= size or (size <= _SECOND and end >= size))
    size, unit = next(fit)
    for moment in range(0, end + 1, step):
        yield moment, f"{moment / size:g} {unit}"

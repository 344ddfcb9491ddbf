"""Lengths of time as people write them: a number and a unit. Exact, in whole nanoseconds. Each call is O(1)."""

from __future__ import annotations

import re
from typing import Self

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
_WRITTEN = ("d", "h", "min", "s", "ms", "us", "ns")
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{1,3})")
_BETWEEN = " to "

LONGEST = 100 * 365 * _UNITS["d"]
"""Nanoseconds: moments that are further away would not fit into the 64 bits of clocks and files."""


class Duration(int):
    """A number of nanoseconds, written with its unit (``"100 ms"``); ``m`` and ``min`` are both minutes."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"1.5 s"``; ValueError says what is wrong and what would work."""
        match = _DURATION.fullmatch(text.strip())
        factor = _UNITS.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise ValueError(f"{text[:40]!r} is not a duration; write a number and a unit, like '100 ms' or '10 min'")
        whole, _, part = match[1].partition(".")
        count, rest = divmod(int(whole + part) * factor, 10 ** len(part))
        if rest:
            raise ValueError(f"{text[:40]!r} is not a whole number of nanoseconds")
        if count > LONGEST:
            raise ValueError(f"{text[:40]!r} is too long; {LONGEST // _UNITS['d']} d is the longest")
        return cls(count)

    def __str__(self) -> str:
        for unit in _WRITTEN:
            if self >= _UNITS[unit] and self % _UNITS[unit] == 0:
                return f"{self // _UNITS[unit]} {unit}"
        return f"{int(self)} {'ns' if self else 's'}"

    __repr__ = __str__


class Spread(tuple[Duration, Duration]):
    """A duration that differs from time to time, evenly from `least` to `most`: ``"1 ms to 3 ms"``, or just ``"1 ms"``.

    A tuple and no dataclass, for a file spells it as text.
    """

    __slots__ = ()

    def __new__(cls, least: Duration, most: Duration) -> Self:
        """Return the spread; ValueError if it ends before it begins."""
        if least > most:
            raise ValueError(f"'{least} to {most}' is no span; write the shorter duration first")
        return super().__new__(cls, (least, most))

    @property
    def least(self) -> Duration:
        """The shortest that it is."""
        return self[0]

    @property
    def most(self) -> Duration:
        """The longest that it is."""
        return self[1]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a duration, or two with ``to`` between them; ValueError says what is wrong and what would work."""
        least, between, most = text.partition(_BETWEEN)
        shortest = Duration.parse(least)
        return cls(shortest, Duration.parse(most) if between else shortest)

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.most else f"{self.least}{_BETWEEN}{self.most}"

    __repr__ = __str__


def about(nanoseconds: int) -> str:
    """Return a length of time for people to read, rounded to three digits: ``"1.25 s"``, ``"85 ms"``, ``"3 min"``."""
    for unit in ("d", "h", "min", "s", "ms", "us"):
        count = nanoseconds / _UNITS[unit]
        if abs(count) >= 1:
            return f"{count:.3g} {unit}" if abs(count) < 999.5 else f"{count:.0f} {unit}"
    return f"{nanoseconds} ns" if nanoseconds else "0 s"

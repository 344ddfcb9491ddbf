"""Durations on the command line."""

from __future__ import annotations

import re

from orchestrator.errors import UsageError

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``1.5m`` or ``1h`` say; UsageError if it says none."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"{text[:40]!r} is not a duration; write a number with its unit, like 30s, 5m or 1h")
    return seconds

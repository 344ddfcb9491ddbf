"""Durations on the command line, where a number without a unit is seconds."""

from __future__ import annotations

from orchestrator.core.durations import Duration
from orchestrator.errors import UsageError


def parse_duration(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``1.5m`` or ``1h`` say; UsageError if it says none."""
    stripped = text.strip()
    try:
        duration = Duration.parse(stripped if stripped[-1:].isalpha() else f"{stripped}s")
    except ValueError:
        duration = Duration(0)
    if not duration:
        raise UsageError(f"{text[:40]!r} is not a duration; write a number with its unit, like 30s, 5m or 1h")
    return duration / 10**9

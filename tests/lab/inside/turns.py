"""What the events of a daemon tell of turns: who had how many cores, for how long, and what was between two turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Turn:
    """A turn of a guest on `cores`; moments in seconds since 1970."""

    guest: str
    cores: tuple[int, ...]
    began: float
    ended: float


def moment(event: Any) -> float:
    """Return when an event happened, in seconds since 1970."""
    return datetime.fromisoformat(event["at"]).timestamp()


def turns(told: list[Any], start: float, end: float) -> Iterator[Turn]:
    """Yield all turns, as far as they are between these moments; `told` are all events from the first on."""
    began: dict[str, Any] = {}
    for event in told:
        if event["what"] == "turn began":
            began[event["guest"]] = event
        elif event["what"] == "turn ended" and event["guest"] in began:
            yield from _clipped(began.pop(event["guest"]), moment(event), start, end)
    for turn in began.values():
        yield from _clipped(turn, end, start, end)


def _clipped(began: Any, ended: float, start: float, end: float) -> Iterator[Turn]:
    first, last = max(start, moment(began)), min(end, ended)
    if first < last:
        yield Turn(began["guest"], tuple(began["cores"]), first, last)


def hand_overs(every: list[Turn]) -> Iterator[float]:
    """Yield how many seconds each core was between two guests, whenever one came right after another."""
    before: dict[int, Turn] = {}
    for turn in sorted(every, key=lambda turn: turn.began):
        for core in turn.cores:
            other = before.get(core)
            if other is not None and other.guest != turn.guest and turn.began > other.ended:
                yield turn.began - other.ended
            before[core] = turn

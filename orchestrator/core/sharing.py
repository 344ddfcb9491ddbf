"""The words of the rotation: its rules, the guests in it, what it decides and what it tells. Values only.

All times are integer nanoseconds of one monotonic clock; all core lists are ascending. What is made for each turn
is a named tuple, which takes less than half the time of a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The times that a policy sets, in nanoseconds.

    `slice` is the length of a turn, `minimum` the shortest that is worth a hand-over and the run that a higher
    class leaves a lower one, `handover` what it takes at most to stop one guest and continue the next, `patience`
    the wait after which, beyond four fair rotations, a guest goes before all others. Raises UsageError.
    """

    slice: int
    minimum: int
    handover: int
    patience: int

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.slice or self.handover < 0 or self.patience < 0:
            raise UsageError(
                f"rotation: slice {self.slice}, minimum {self.minimum}, handover {self.handover}, patience "
                f"{self.patience} ns: none is negative, and 0 < minimum <= slice"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A shared guest: `width` is the cores it holds at once, a higher `priority` goes first. Raises UsageError."""

    id: str
    owner: str
    width: int
    weight: int = 100
    priority: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.weight < 1:
            raise UsageError(f"{self.id}: width {self.width} and weight {self.weight} must be at least 1")


class Stop(NamedTuple):
    """A turn is over: stop the guest, then give its cores on. `ran` is its length as decided, in nanoseconds."""

    guest: str
    cores: tuple[int, ...]
    ran: int


class Run(NamedTuple):
    """A turn begins on these cores (ascending) and lasts until `until`, or longer if nobody else wants them.

    The guest has waited from `since` on and was to run by `latest`, by the bound.
    """

    guest: str
    cores: tuple[int, ...]
    until: int
    since: int
    latest: int


@dataclass(frozen=True, slots=True)
class Decisions:
    """What to do now: every stop comes before any run that gets its cores."""

    stops: tuple[Stop, ...] = ()
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One guest that runs: its cores ascending, since when without a stop, and when its slice ends, in nanoseconds."""

    guest: str
    cores: tuple[int, ...]
    since: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why and how long one guest waits; moments are in nanoseconds.

    `position` counts from 1 in the order of service. From `due` on it goes before all that are not due, and it
    runs by `latest` at the latest (see `waits`); None says that it is wider than the shared pool as it is.
    `reserved` is the moment for which cores are being kept for it, if it is the head.
    """

    guest: str
    owner: str
    width: int
    priority: int
    position: int
    since: int
    due: int
    latest: int | None
    reserved: int | None

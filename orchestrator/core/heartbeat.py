"""The scheduler's heartbeat, as the guard feels it: what follows from how old the last beat is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BEAT_EVERY = 100_000_000
"""Nanoseconds between two beats."""

NANOSECONDS = 1_000_000_000

HUNG_AFTER = 700_000_000
"""Nanoseconds without one after which the scheduler hangs. Looked at often enough, this is told within a second."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What the scheduler has said last."""

    pid: int
    began: int
    at: int
    ended: bool


class Health(StrEnum):
    """How the scheduler is."""

    ABSENT = "absent"
    ALIVE = "alive"
    HUNG = "hung"
    ENDED = "ended"
    DIED = "died"


def health(beat: Beat | None, now: int, *, there: bool) -> Health:
    """Say how the scheduler is; `there` is whether its process is."""
    if beat is None:
        return Health.ABSENT
    if beat.ended:
        return Health.ENDED
    if not there:
        return Health.DIED
    return Health.HUNG if now - beat.at > HUNG_AFTER else Health.ALIVE


class Pulse:
    """Follows the heartbeat, and says what is new: each change once."""

    def __init__(self) -> None:
        self.health = Health.ABSENT
        self._since = 0

    def feel(self, beat: Beat | None, now: int, *, there: bool) -> str:
        """Take in how the scheduler is now; return what somebody should know, empty if nothing is new."""
        before, self.health = self.health, health(beat, now, there=there)
        if self.health is before:
            return ""
        since, self._since = self._since, now if beat is None else beat.at
        who = "the scheduler" if beat is None else f"the scheduler (process {beat.pid})"
        silent = 0 if beat is None else now - beat.at
        told = {
            Health.ABSENT: "",
            Health.HUNG: f"{who} hangs: no heartbeat for {silent / NANOSECONDS:.2f} s; guests go on",
            Health.DIED: f"{who} has died; guests go on",
            Health.ENDED: f"{who} has ended; guests go on",
            Health.ALIVE: f"{who} is there",
        }
        if (before, self.health) == (Health.HUNG, Health.ALIVE):
            return f"{who} goes on, after {(now - since) / NANOSECONDS:.2f} s"
        return told[self.health]

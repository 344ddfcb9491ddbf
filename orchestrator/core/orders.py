"""What comes out of the scheduler: what it wants done, and what it tells. Values only; times in nanoseconds."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.steps import End, Launch, Reseat


class Freeze(NamedTuple):
    """Keep every thread of a quarantined guest from running, without its help."""

    guest: str


class Kill(NamedTuple):
    """End a quarantined guest's process, without its help."""

    guest: str


Order: TypeAlias = Launch | Reseat | End | Continue | Halt | Freeze | Kill


class Happening(StrEnum):
    """What a notice tells."""

    TURN_BEGAN = "turn began"
    TURN_ENDED = "turn ended"
    ENLISTED = "takes turns"
    DISCHARGED = "takes no turns"
    RESIZED = "shared pool resized"
    POLICY = "policy changed"
    DRIFT = "drift"
    PUT_BACK = "put back"
    ASTRAY = "astray"
    OUTPUT_LOST = "output lost"
    RESEATED = "has these cores"
    DONE = "done"
    UNDONE = "undone"
    WITHDRAWN = "withdrawn"
    QUARANTINED = "quarantined"
    GONE = "gone"
    WARNED = "warned"
    WARNED_OF_END = "warned of its end"
    THROTTLED = "throttled"
    RELEASED = "no longer throttled"
    OUT_OF_QUOTA = "out of quota"
    MOVES = "moves"
    QUEUED = "queued"
    ALARM = "waits too long"


class Notice(NamedTuple):
    """Something that happened at `at`, to these cores where there are any.

    `since` is when the turn that ended, or the wait before a turn that began, had begun; `latest` is by when that
    turn had to begin, by the bound, and 0 for an exclusive guest. `why` says what went wrong, where something did.
    """

    what: Happening
    guest: str
    at: int
    cores: tuple[int, ...] = ()
    since: int = 0
    latest: int = 0
    why: str = ""

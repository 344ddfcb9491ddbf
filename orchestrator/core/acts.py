"""The acts of a hand-over, and where a guest is between two turns. Values only."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Phase(Enum):
    """Where a guest is between two turns."""

    ASSIGNED = "waits for its cores"
    HELD = "has its cores and stands still"
    CONTINUING = "told to continue"
    RUNNING = "running"
    SUSPENDING = "told to stop"


class Continue(NamedTuple):
    """Let a guest's vCPUs run on these cores, which it holds under this token; `moved`: pin its threads there first."""

    guest: str
    cores: tuple[int, ...]
    moved: bool
    token: int


class Halt(NamedTuple):
    """Stop a guest's vCPUs; it holds these cores under this token until that is confirmed."""

    guest: str
    cores: tuple[int, ...]
    token: int

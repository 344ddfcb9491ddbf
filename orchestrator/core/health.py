"""How helpers of the daemon are doing, as values to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.journal import START, Head


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoresHealth:
    """How the chores are doing, since they were started.

    Of records (of the event log and of metrics): `sent` were given to the process, `queue` wait to be, `dropped` found
    the queue full; `durable` are on the disk, `lost` were received and could not be kept. Of serial logs:
    `serial_bytes` are on the disk, `serial_lost` were taken away by their limit before they could be. `alive` tells
    whether the process still listens; `trouble` is what the disk last refused, empty while nothing is wrong.
    """

    sent: int
    dropped: int
    queue: int
    durable: int
    lost: int
    serial_bytes: int
    serial_lost: int
    alive: bool
    trouble: str


@dataclass(frozen=True, slots=True)
class Kept:
    """How far the journal goes, and how many records of the event log and of samples could not be kept."""

    head: Head = START
    lost: int = 0

"""The steps of which plans are made. Values only; what each means is told here, and done by `scheduler`."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.placement import Placement

# Steps that change the books.


@dataclass(frozen=True, slots=True)
class Withhold:
    """Take cores from the shared pool; who is on them is stopped and waits for a turn elsewhere."""

    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """Give cores back to the shared pool."""

    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """Take the locks of all these cores for a guest, as soon as the last former holder has confirmed its stop."""

    guest: str
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unlock:
    """Give back all locks that a guest holds."""

    guest: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the locks of these cores beside those that a guest holds, as soon as all their holders have stopped."""

    guest: str
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Give back the locks of these of a guest's cores, or leave the queue for them."""

    guest: str
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Enlist:
    """Let a guest take turns (again)."""

    guest: str


@dataclass(frozen=True, slots=True)
class Discharge:
    """Let a guest take no more turns; one it is taking ends."""

    guest: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Strike a guest whose process is no more from the books and from the rotation."""

    guest: str


# Steps that are acts of the hypervisor.


@dataclass(frozen=True, slots=True)
class Launch:
    """Define a guest, start it paused, and prove that all its threads are where the placement says."""

    guest: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a guest's vCPUs run on the cores whose locks it holds."""

    guest: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop a guest's vCPUs and have it confirmed."""

    guest: str


@dataclass(frozen=True, slots=True)
class Reseat:
    """Give a guest as many vCPUs as this placement has cores for, and prove that all its threads are there."""

    guest: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class End:
    """End a guest's process and clear away what it leaves."""

    guest: str


Change = Withhold | Restore | Lock | Unlock | Claim | Release | Enlist | Discharge | Forget
Act = Launch | Resume | Suspend | Reseat | End


@dataclass(frozen=True, slots=True)
class Step:
    """One step and what takes it back; nothing where there is nothing to take back, or nothing can."""

    do: Change | Act
    undo: Change | Act | None = None

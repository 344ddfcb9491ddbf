"""What can be asked of the scheduler. Values only; what becomes of each is decided in `plan`."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.model import GuestSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGuest:
    """Start a guest of this definition for its owner, in a priority class (the higher goes first; None: the policy's).

    `disk` is what its writable disks can grow to, in bytes. `by_admin` is what a member of the admin group asks for.
    One that is `staged` is launched and then stands still, as if it were paused, until it is resumed.
    """

    spec: GuestSpec
    owner: str
    priority: int | None = None
    disk: int = 0
    by_admin: bool = False
    staged: bool = False

    @property
    def guest(self) -> str:
        """Return the guest's name."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class StopGuest:
    """End a guest and forget it."""

    guest: str


@dataclass(frozen=True, slots=True)
class PauseGuest:
    """Let a guest stand still until it is resumed; a shared one gets no turns, an exclusive one keeps its cores."""

    guest: str


@dataclass(frozen=True, slots=True)
class ResumeGuest:
    """Let a paused guest go on."""

    guest: str


@dataclass(frozen=True, slots=True)
class MoveGuest:
    """Have an exclusive guest on other cores: these (ascending); on better ones if none is named and there are such."""

    guest: str
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ResizeGuest:
    """Have so many vCPUs in an exclusive guest that runs, each on a core of its own."""

    guest: str
    vcpus: int


Request = StartGuest | StopGuest | PauseGuest | ResumeGuest | MoveGuest | ResizeGuest

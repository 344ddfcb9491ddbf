"""The port to the control groups of guests: by them the kernel bounds what each one's QEMU may have."""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.bounds import Bounds


class GuestGroups(Protocol):
    """A control group for each guest, named by the UUID of its domain, below one that has the pool's cores alone."""

    def confine(self, uuid: str, pid: int, bounds: Bounds) -> None:
        """Bring a process into its guest's group, made if need be, with these bounds; fine if the process has gone.

        Its threads may run on any core of the pool then: pin them anew. FailedError if the kernel refuses.
        """

    def elsewhere(self, uuid: str, pid: int) -> str:
        """Return the path of the group that a process is in, if that is not its guest's; empty if it is, or gone."""

    def release(self, uuid: str) -> None:
        """Remove a guest's group once nothing is in it; fine if there is none. What is left goes with the next one."""

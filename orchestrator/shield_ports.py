"""The ports of the shield: the kernel's settings, and the record of what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.core.shield import Change, Seen
from orchestrator.core.shield_record import ShieldRecord


class Kernel(Protocol):
    """The kernel's settings, one by one. Whatever is done twice is as if done once."""

    @property
    def boot(self) -> str:
        """Which boot of the host this is."""

    def see(self) -> Seen:
        """Return the settings as they are. HostError if the kernel offers no cpusets."""

    def settings(self) -> Mapping[str, str]:
        """Return `Seen.settings` alone, which is no more than a handful of small files."""

    def make(self, change: Change) -> None:
        """Bring about `change.after`; fine if what it is about has gone. FailedError if the kernel refuses."""

    def undo(self, change: Change) -> None:
        """Bring about `change.before` again; fine if that holds, or if what it is about has gone. FailedError else."""


class ShieldBook(Protocol):
    """Where the record is kept. What was saved is durable when `save` returns."""

    def load(self) -> ShieldRecord | None:
        """Return the record; None if there is none. HostError if it cannot be read."""

    def save(self, record: ShieldRecord) -> None:
        """Keep this record in place of any before. HostError if it cannot be kept."""

    def drop(self) -> None:
        """Remove the record; fine if there is none."""

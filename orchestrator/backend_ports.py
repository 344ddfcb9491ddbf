"""The port to the processes beside guests that are their devices' other half. The other ports are in `ports`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from orchestrator.core.backends import BackEnd


class BackEnds(Protocol):
    """Starts and ends back ends, and knows them again: what is noted of each is in the guest's run directory."""

    async def start(self, directory: str, owner: str | None, back_ends: Sequence[BackEnd]) -> None:
        """Start the back ends of a guest on the service core, each waiting for QEMU at its socket in the directory.

        They have the rights of `owner`, or ours if that is None. HostError if this host lacks one of the programs,
        FailedError if one cannot be started; then none of them runs.
        """

    def processes(self, directory: str) -> Mapping[str, int | None]:
        """Return the pid of each back end that was started for the guest, by name; None where it has ended."""

    def last_words(self, directory: str) -> str:
        """Return the last line that one of them has written as an error; empty if nobody knows of any."""

    async def end(self, directory: str) -> None:
        """End the back ends of a guest whose QEMU has ended, and remove their sockets; fine if there are none.

        OutcomeUnknownError if one does not end.
        """

    async def sweep(self, keep: Collection[str]) -> Sequence[str]:
        """End the back ends of all guests but those in the directories to `keep`; return a line for each such guest."""

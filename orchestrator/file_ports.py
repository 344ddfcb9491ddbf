"""The port through which files are opened as users would, and what comes back. The other ports are in `ports`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.files import GuestFile


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that was opened with its user's rights: `descriptor` is None if it could not be, and `trouble` says why.

    `device` and `inode` are the kernel's, `size` is that of the disk in an image, else of the file, in bytes.
    """

    file: GuestFile
    descriptor: int | None
    trouble: str = ""
    device: int = 0
    inode: int = 0
    size: int = 0


class FileOpener(Protocol):
    """Opens files as users would. What has been opened cannot be swapped for another."""

    def opened(self, owner: str, files: Sequence[GuestFile]) -> AbstractAsyncContextManager[Sequence[OpenedFile]]:
        """Open files with the rights of this user, for as long as the context lasts. HostError if nobody can here."""

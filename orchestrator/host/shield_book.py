"""The record of a shield on a disk: one file that is replaced as a whole, so that a crash never leaves half of one."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.core.shield_record import ShieldRecord, decode, encode
from orchestrator.errors import HostError, UsageError


class ShieldFile:
    """Keeps the record at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> ShieldRecord | None:
        """Return the record; None if there is none. HostError if it cannot be read, or has been changed by hand."""
        try:
            return decode(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, UsageError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise HostError(f"{self._path}: {why}; what is undone by it can also be undone by a reboot") from None

    def save(self, record: ShieldRecord) -> None:
        """Write it aside, make it durable, and put it in the place of the one before."""
        aside = self._path.with_name(f"{self._path.name}.new")
        try:
            with aside.open("w") as file:
                file.write(encode(record))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
            self._sync()
        except OSError as error:
            raise HostError(f"{self._path}: cannot be kept: {error.strerror}; nothing was changed after it") from None

    def drop(self) -> None:
        """Remove the record; fine if there is none."""
        try:
            self._path.unlink(missing_ok=True)
            self._sync()
        except OSError as error:
            raise HostError(f"{self._path}: cannot be removed: {error.strerror}; give access, run it again") from None

    def _sync(self) -> None:
        handle = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

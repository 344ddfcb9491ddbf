"""Where the heads of journals are kept beside the journals: a file under another owner, and the system's log."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import HostError

OTHER_OWNER, READERS = "daemon", "adm"
"""User and group of the file on Debian: neither runs anything of ours, and members of the group read logs."""

_NOTICE = 10 << 3 | 5  # authpriv.notice of syslog(3)


class HeadsFile:
    """The file at `path`, to which signed heads are appended; made if it is not there, and another's as root may.

    `protect` as in `JournalFile`. `notes` says what it is not. HostError if it cannot be opened.
    """

    def __init__(self, path: Path, protect: Callable[[int, bool], str]) -> None:
        self._path = path
        self._protect = protect
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise HostError(
                f"{path}: heads of the journal cannot be kept there: {error.strerror}; give access"
            ) from None
        self.notes = tuple(filter(None, (self._give_away(),)))
        protect(self._descriptor, True)

    def append(self, line: bytes) -> None:
        """Append a line and make it durable. HostError if it cannot be."""
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 (as the next write would)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._take_back(size)
            raise HostError(f"{self._path}: a head of the journal is not kept: {error.strerror}; make room") from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _take_back(self, size: int) -> None:
        self._protect(self._descriptor, False)
        with contextlib.suppress(OSError):  # then a line without an end is left, and told by who verifies
            os.ftruncate(self._descriptor, size)
        self._protect(self._descriptor, True)

    def _give_away(self) -> str:
        try:
            owner, group = pwd.getpwnam(OTHER_OWNER).pw_uid, grp.getgrnam(READERS).gr_gid
            if os.fstat(self._descriptor).st_uid != owner:
                os.fchown(self._descriptor, owner, group)
        except (KeyError, OSError):
            return f"{self._path}: has the same owner as the journal, since only root gives it to {OTHER_OWNER}"
        return ""


def tell_syslog(line: str, path: str = "/dev/log") -> bool:
    """Give the system's log a line, and do not wait for it; tell whether it was taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as log:
        try:
            log.sendto(f"<{_NOTICE}>orchestrator[{os.getpid()}]: {line}".encode(), path)
        except OSError:
            return False
    return True

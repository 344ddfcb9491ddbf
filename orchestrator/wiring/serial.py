"""Serial ports: what they printed, and attaching to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.wiring.site import guest_directories

_LOOK_EVERY = 0.2


def serial_pieces(guest: str, *, follow: bool) -> Iterator[bytes]:
    """Yield what a guest's serial port has printed, and with `follow` whatever comes, until its run directory is new.

    UsageError if no guest of this name has run here.
    """
    from orchestrator.host.guest_files import GuestDirectories

    files = GuestDirectories(guest_directories())
    if not (_directory(guest) / "serial.log").exists():
        raise UsageError(f"{guest}: no serial log; `orchestrator ps` lists the guests that run")
    seen = 0
    while True:
        piece, seen = files.serial_log(guest, seen)
        yield piece
        if not follow:
            return
        time.sleep(_LOOK_EVERY)


def serial_socket(guest: str) -> Path:
    """Return the path of a guest's serial socket; UsageError if it has none now."""
    path = _directory(guest) / "serial.sock"
    if not path.exists():
        raise UsageError(f"{guest}: no serial port to attach to; `orchestrator ps` lists the guests that run")
    return path


def attach_console(socket: Path) -> None:
    """Copy between this terminal and the serial socket until Ctrl-] or the guest's end."""
    from orchestrator.host.console import attach

    attach(socket)


def _directory(guest: str) -> Path:
    """Return a guest's run directory; a name with a slash in it is nobody's."""
    if guest != Path(guest).name or guest in ("", ".", ".."):
        raise UsageError(f"{guest[:60]!r} is not a guest's name")
    return guest_directories() / guest

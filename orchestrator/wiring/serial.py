"""Serial ports: what they printed, and attaching to them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.wiring.site import guest_directories

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from contextlib import AbstractAsyncContextManager

    from orchestrator.ports import SerialText

_LOOK_EVERY = 0.2


def serial_pieces(guest: str, *, follow: bool) -> Iterator[bytes]:
    """Yield what a guest's serial port has printed, and with `follow` whatever comes, until its run directory is new.

    UsageError if no guest of this name has run here.
    """
    if not (_directory(guest) / "serial.log").exists():
        raise UsageError(f"{guest}: no serial log; `orchestrator ps` lists the guests that run")
    seen = 0
    while True:
        piece, seen = read_log(guest, seen)
        yield piece
        if piece:
            continue
        if not follow:
            return
        time.sleep(_LOOK_EVERY)


def read_log(guest: str, start: int, most: int = -1) -> SerialText:
    """Return what a guest has printed from byte `start` on; what is no longer in memory is read where it was kept."""
    from orchestrator.host.guest_files import GuestDirectories
    from orchestrator.host.kept_serial import kept_text
    from orchestrator.host.places import state_directory

    with contextlib.suppress(OrchestratorError):  # there is no state folder, or it is not ours
        folder = state_directory(os.environ) / "logs" / "serial"
        kept = kept_text(folder, guest, _directory(guest) / "serial.log", start, most)
        if kept is not None:
            return kept
    return GuestDirectories(guest_directories()).serial_log(guest, start, most)


def is_here(guest: str) -> bool:
    """Tell whether a guest of this name has run here and its log can be read, so that no daemon has to be asked."""
    try:
        return (_directory(guest) / "serial.log").exists()
    except PermissionError:
        return False


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


class ServedSerials:
    """Implements `service.serials.Serials` for the guests of this process, which have been looked up already."""

    def log(self, guest: str, start: int, most: int) -> SerialText:
        """Return at most so many bytes of what a guest has printed, from byte `start` on."""
        return read_log(guest, start, most)

    def attached(self, guest: str) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        """Attach to a guest's serial port, alone."""
        from orchestrator.host.console import attached

        return attached(_directory(guest) / "serial.sock")


def _directory(guest: str) -> Path:
    """Return a guest's run directory; a name with a slash in it is nobody's."""
    if guest != Path(guest).name or guest in ("", ".", ".."):
        raise UsageError(f"{guest[:60]!r} is not a guest's name")
    return guest_directories() / guest

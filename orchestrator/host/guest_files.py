"""Files around guests: the run directory of each one, its overlays, and what a definition refers to."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import FailedError, HostError, UsageError
from orchestrator.ports import SerialText

_LONGEST_SOCKET = 107  # bytes of sun_path without its end, unix(7)


class GuestDirectories:
    """A run directory for each guest below `root`, readable by its owner alone.

    That is the caller, or the `user` as whom a libvirt daemon runs QEMU, which binds its sockets there.
    """

    def __init__(self, root: Path, user: int | None = None) -> None:
        self._root = root
        self._user = user

    def directory(self, name: str) -> str:
        """Return the path of the guest's run directory; UsageError if a socket in it could not be bound."""
        path = str(self._root / name)
        if len(os.fsencode(f"{path}/monitor.sock")) > _LONGEST_SOCKET:
            raise UsageError(
                f"{path}/monitor.sock: longer than a Unix socket's path may be ({_LONGEST_SOCKET} bytes); "
                "use a shorter guest name, or a shorter ORCHESTRATOR_RUNTIME_DIR"
            )
        return path

    async def prepare(self, name: str, overlays: Mapping[str, tuple[str, str]]) -> None:
        """Make the directory anew, with a qcow2 overlay for each path above (image, its format)."""
        await asyncio.to_thread(_make_anew, Path(self.directory(name)), overlays, self._user)

    def discard(self, name: str) -> None:
        """Remove sockets and overlays; the serial log stays to be read."""
        path = Path(self.directory(name))
        if not path.is_dir():
            return
        for entry in path.iterdir():
            if entry.name != "serial.log":
                entry.unlink(missing_ok=True)  # QEMU removes its sockets itself as it ends

    def serial_log(self, name: str, start: int = 0) -> SerialText:
        """Return what the serial port has printed from byte `start` on, without what has been taken out of the log."""
        try:
            with (Path(self.directory(name)) / "serial.log").open("rb") as log:
                # The chores take the old part of a long log out of memory: a hole is left, and nothing is in it.
                log.seek(os.lseek(log.fileno(), start, os.SEEK_DATA))
                text = log.read()
                return SerialText(text, log.tell())
        except FileNotFoundError:
            return SerialText(b"", start)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is nothing behind `start`
                return SerialText(b"", start)
            raise


def unreadable(path: str) -> str | None:
    """Say why `path` cannot be given to a guest: not there, not a file, not ours to read. None if it can."""
    if not os.path.lexists(path):
        return f"{path} does not exist"
    if not (Path(path).is_file() or Path(path).is_block_device()):
        return f"{path} is neither a file nor a block device"
    return None if os.access(path, os.R_OK) else f"{path} cannot be read by this user"


def _make_anew(path: Path, overlays: Mapping[str, tuple[str, str]], user: int | None) -> None:
    try:
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(mode=0o700, parents=True)
        if user is not None:
            os.chown(path, user, -1)
    except OSError as error:
        raise FailedError(f"{path}: the guest's run directory cannot be made: {error.strerror}") from error
    for overlay, (image, form) in overlays.items():
        _create_overlay(overlay, image, form)


def _create_overlay(overlay: str, image: str, form: str) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", image, overlay]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise HostError("qemu-img is missing; `apt-get install qemu-utils` installs it") from None
    except subprocess.CalledProcessError as error:
        raise FailedError(f"{image}: no overlay could be made above it: {error.stderr.strip()}") from None

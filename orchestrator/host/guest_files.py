"""Files around guests: the run directory of each one, its overlays, and what a definition refers to."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from orchestrator.core.files import GuestFile
from orchestrator.errors import FailedError, HostError, UsageError
from orchestrator.file_ports import FileOpener, OpenedFile
from orchestrator.ports import SerialText

_MS_RDONLY, _MS_NOSUID, _MS_NOEXEC = 1, 2, 8  # mount(2)
_MS_REMOUNT, _MS_BIND, _MS_PRIVATE = 32, 4096, 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8  # umount2(2)

_libc = ctypes.CDLL(None, use_errno=True)

_LONGEST_SOCKET = 107  # bytes of sun_path without its end, unix(7)


class GuestDirectories:
    """A run directory for each guest below `root`, readable by its owner alone.

    That is the caller, or the `user` as whom a libvirt daemon runs QEMU, which binds its sockets there. What other
    users' guests are made of is opened by `opener`.
    """

    def __init__(self, root: Path, user: int | None = None, opener: FileOpener | None = None) -> None:
        self._root = root
        self._user = user
        self._opener = opener

    def directory(self, name: str) -> str:
        """Return the path of the guest's run directory; UsageError if a socket in it could not be bound."""
        path = str(self._root / name)
        if len(os.fsencode(f"{path}/monitor.sock")) > _LONGEST_SOCKET:
            raise UsageError(
                f"{path}/monitor.sock: longer than a Unix socket's path may be ({_LONGEST_SOCKET} bytes); "
                "use a shorter guest name, or a shorter ORCHESTRATOR_RUNTIME_DIR"
            )
        return path

    async def prepare(
        self,
        name: str,
        overlays: Mapping[str, tuple[str, str]],
        pins: Mapping[str, GuestFile],
        owner: str,
        copies: Mapping[str, str],
    ) -> Mapping[str, int]:
        """Make the directory anew, with a qcow2 overlay for each path above (image, its format), or that is a copy.

        A pin is a mount of the file that was opened, read-only unless the guest may write to it: neither a change of
        its name nor a crash of ours moves it, and QEMU gets no more of it than its owner would.
        """
        await asyncio.to_thread(_make_anew, Path(self.directory(name)), self._user)
        sizes: dict[str, int] = {}
        if pins:
            if self._opener is None:
                raise HostError(f"{name}: nobody here opens files with the rights of {owner}")
            async with self._opener.opened(owner, list(pins.values())) as opened:
                if troubles := [each.trouble for each in opened if each.trouble]:
                    raise FailedError(f"{name}: {'; '.join(troubles)}")
                sizes = await asyncio.to_thread(_pin_all, dict(zip(pins, opened, strict=True)))
        for overlay, (image, form) in overlays.items():
            if overlay in copies:
                await asyncio.to_thread(_copy, copies[overlay], overlay)
            else:
                await asyncio.to_thread(_create_overlay, overlay, image, form, sizes.get(image))
        return sizes

    def discard(self, name: str) -> None:
        """Remove sockets, overlays and pins; the serial log stays to be read."""
        path = Path(self.directory(name))
        if not path.is_dir():
            return
        for entry in path.iterdir():
            if entry.name != "serial.log":
                _unpin(entry)
                entry.unlink(missing_ok=True)  # QEMU removes its sockets itself as it ends

    def serial_log(self, name: str, start: int = 0, most: int = -1) -> SerialText:
        """Return what the serial port has printed from byte `start` on, without what has been taken out of the log."""
        try:
            with (Path(self.directory(name)) / "serial.log").open("rb") as log:
                # The chores take the old part of a long log out of memory: a hole is left, and nothing is in it.
                log.seek(os.lseek(log.fileno(), start, os.SEEK_DATA))
                text = log.read(most)
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


def unusable(path: str, *, writable: bool) -> str | None:
    """Say why the folder `path` cannot be given to a guest, which makes files in it if it is `writable`."""
    if not os.path.lexists(path):
        return f"{path} does not exist"
    if not Path(path).is_dir():
        return f"{path} is not a folder"
    if not os.access(path, os.R_OK | os.X_OK):
        return f"{path} cannot be read by this user"
    return (
        f"{path} is a folder in which this user cannot make files"
        if writable and not os.access(path, os.W_OK)
        else None
    )


def _make_anew(path: Path, user: int | None) -> None:
    try:
        if path.exists():
            for entry in path.iterdir():
                _unpin(entry)
            shutil.rmtree(path)
        path.mkdir(mode=0o700, parents=True)
        if user is not None:
            os.chown(path, user, -1)
    except OSError as error:
        raise FailedError(f"{path}: the guest's run directory cannot be made: {error.strerror}") from error


def _pin_all(pins: Mapping[str, OpenedFile]) -> dict[str, int]:
    """Hold each file fast at its path; return the sizes of the disks in those that are images."""
    sizes = {}
    for path, opened in pins.items():
        _pin(path, opened)
        if opened.file.format is not None:
            sizes[path] = opened.size
    return sizes


def _pin(path: str, opened: OpenedFile) -> None:
    """Mount what is open at `path`; FailedError if what is there then is not that file."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    flags = _MS_BIND | _MS_NOSUID | _MS_NOEXEC | (0 if opened.file.writable else _MS_RDONLY)
    _mount(f"/proc/self/fd/{opened.descriptor}", path, _MS_BIND)
    _mount("none", path, _MS_PRIVATE)
    _mount("none", path, _MS_REMOUNT | flags)
    status = Path(path).lstat()
    if (status.st_dev, status.st_ino) != (opened.device, opened.inode):
        raise FailedError(f"{path}: is not the file that was opened for it")


def _mount(source: str, path: str, flags: int) -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(path), None, flags, None) != 0:
        why = os.strerror(ctypes.get_errno())
        raise HostError(f"{path}: a user's file cannot be mounted there: {why}; the daemon needs CAP_SYS_ADMIN for it")


def _unpin(entry: Path) -> None:
    """Take the mount from a path, if there is one: whoever has the file open keeps it."""
    if entry.name.startswith("pin."):
        _libc.umount2(os.fsencode(entry), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def _create_overlay(overlay: str, image: str, form: str, size: int | None) -> None:
    """Make a layer above an image. One whose `size` is known is not opened for it: it may name other files."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", image]
    command += [overlay] if size is None else ["-u", overlay, str(size)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise HostError("qemu-img is missing; `apt-get install qemu-utils` installs it") from None
    except subprocess.CalledProcessError as error:
        raise FailedError(f"{image}: no overlay could be made above it: {error.stderr.strip()}") from None


def _copy(saved: str, overlay: str) -> None:
    """Copy a saved overlay, its blocks shared where the file system can."""
    command = ["cp", "--reflink=auto", "--sparse=always", "--", saved, overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{overlay}: cannot be a copy of the saved one: {done.stderr.strip()}")

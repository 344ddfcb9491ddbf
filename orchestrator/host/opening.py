"""Files opened with a user's rights: by a child that has become that user, and hands the descriptors over.

A helper process forks the children, since the scheduler's own process is too large, too busy and too privileged to be
forked. A child has no more of it than one end of a socket pair. What it opens cannot be swapped afterwards: the
descriptor is the file, whatever becomes of its name. (Run as a program, this module is the helper.)
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence

from orchestrator import rooms
from orchestrator.core.files import HEADER_BYTES, GuestFile, image_size, image_trouble
from orchestrator.core.model import DiskFormat
from orchestrator.errors import HostError
from orchestrator.file_ports import OpenedFile
from orchestrator.rights import rights

OPEN_LIMIT = 10.0
"""Seconds in which all files of a guest must have been opened: a file system may be slow, or its owner wants it so."""

_AT_ONCE = 4
"""How many times one user's files are being opened at the same time; who waits for that has all of his limit left."""

_ANSWER_BYTES = 65536
_MOST_FILES = 64

_FUSE = 0x65735546  # statfs(2), as those that follow
_PROC, _SYSFS, _DEBUGFS, _TRACEFS, _CONFIGFS = 0x9FA0, 0x62656572, 0x64626720, 0x74726163, 0x62656570
_SECURITYFS, _CGROUP, _CGROUP2, _BPF, _EFIVARFS = 0x73636673, 0x27E0EB, 0x63677270, 0xCAFE4A11, 0xDE5E81E4
_PSEUDO = {_PROC, _SYSFS, _DEBUGFS, _TRACEFS, _CONFIGFS, _SECURITYFS, _CGROUP, _CGROUP2, _BPF, _EFIVARFS}

_Found = tuple[int, str, int, int, int]
"""What a child says of a file: an error number or 0, what else is wrong, device, inode, and size."""


class UserFiles:
    """Opens files for users, see above. The helper is started when it is first needed, on the cores given."""

    def __init__(self, cores: Sequence[int] = (), limit: float = OPEN_LIMIT) -> None:
        self._cores = cores
        self._limit = limit
        self._helper: socket.socket | None = None
        self._starting = threading.Lock()
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))

    def close(self) -> None:
        """Let the helper end, if there is one; the next opening starts another."""
        with self._starting:
            if self._helper is not None:
                self._helper.close()
                self._helper = None

    @contextlib.asynccontextmanager
    async def opened(self, owner: str, files: Sequence[GuestFile]) -> AsyncIterator[tuple[OpenedFile, ...]]:
        """Open each file with the rights of this user; they are closed at the end.

        HostError if this process may not act for another user, or the user's files do not let themselves be opened.
        """
        descriptors = array.array("i")
        try:
            told = await self._ask(owner, files, descriptors)
            left = iter(descriptors)
            yield tuple(_opened(owner, file, found, left) for file, found in zip(files, told, strict=True))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _ask(self, owner: str, files: Sequence[GuestFile], descriptors: array.array[int]) -> list[_Found]:
        uid, gid, groups = await asyncio.to_thread(rights, owner)
        wanted = [uid, gid, groups, [(file.path, file.writable, file.format, file.folder) for file in files]]
        async with self._turns[owner]:
            answer = await self._answer(json.dumps(wanted).encode(), descriptors)
        try:
            told: list[_Found] = json.loads(answer)
        except ValueError:
            raise HostError(f"the files of {owner} did not let themselves be opened within {self._limit:g} s") from None
        return told

    async def _answer(self, order: bytes, descriptors: array.array[int]) -> bytes:
        """Return what a child says to an order; nothing if it does not in time."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                await asyncio.to_thread(self._hand_over, theirs)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._limit):
                    await loop.sock_sendall(ours, order)
                    ours.shutdown(socket.SHUT_WR)
                    return await _received(ours, descriptors)
            except (TimeoutError, OSError):
                return b""

    def _hand_over(self, connection: socket.socket) -> None:
        """Give the helper the end of a socket pair of which a child shall take its orders."""
        with self._starting:
            for again in (True, False):
                if self._helper is None:
                    self._helper = self._start()
                try:
                    socket.send_fds(self._helper, [b"."], [connection.fileno()])
                except OSError as error:  # somebody has ended it
                    self._helper.close()
                    self._helper = None
                    if not again:
                        raise HostError(f"the helper that opens users' files does not answer: {error}") from None
                else:
                    return

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            cores = ",".join(map(str, self._cores))
            # -I: nothing is imported from where we stand, and no variable of ours changes what the helper does
            command = [sys.executable, "-I", "-m", __name__, str(theirs.fileno()), str(self._limit), cores]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True, cwd="/"
            )
        threading.Thread(target=process.wait, daemon=True, name="waits for the helper").start()
        return ours


async def _received(connection: socket.socket, descriptors: array.array[int]) -> bytes:
    """Read to the end of what a child answers, with the descriptors that come with it."""
    loop, answer, ready = asyncio.get_running_loop(), b"", asyncio.Event()
    room = socket.CMSG_SPACE(_MOST_FILES * descriptors.itemsize)
    while True:
        ready.clear()
        loop.add_reader(connection, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(connection)
        data, ancillary, _, _ = connection.recvmsg(_ANSWER_BYTES, room)
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        if not data:
            return answer
        answer += data


def _opened(owner: str, file: GuestFile, found: _Found, descriptors: Iterator[int]) -> OpenedFile:
    """Return what became of a file, with the next of the descriptors if it was opened."""
    number, trouble, device, inode, size = found
    if number:
        what = "be opened for writing" if file.writable else "be read"
        hint = "; if it is only to be read, say readonly = true or overlay = true" if file.writable else ""
        trouble = f"cannot {what} by {owner}: {os.strerror(number)}{hint}"
    descriptor = None if trouble else next(descriptors)
    return OpenedFile(file, descriptor, f"{file.path} {trouble}" if trouble else "", device, inode, size)


# The helper, and its children. Nothing is raised here: who hears nothing says that it took too long.


def _serve(connection: socket.socket, limit: float) -> None:
    """Fork a child for each connection that is handed over, until nobody is left to hand one over."""
    children: dict[int, float] = {}
    while True:
        select.select([connection], [], [], 1.0 if children else None)
        _see_to(children)
        if not select.select([connection], [], [], 0)[0]:
            continue
        data, given, _, _ = socket.recv_fds(connection, 1, 1)
        if not data:
            break
        child = os.fork()
        if child == 0:
            connection.close()
            _become_and_open(given[0])
        children[child] = time.monotonic() + limit
        os.close(given[0])
    for child in children:
        os.kill(child, signal.SIGKILL)


def _see_to(children: dict[int, float]) -> None:
    """Collect children that have ended, and end those that have had their time; a user may have stopped his."""
    for child, due in list(children.items()):
        if os.waitpid(child, os.WNOHANG)[0]:
            del children[child]
        elif time.monotonic() > due:
            os.kill(child, signal.SIGKILL)


def _become_and_open(descriptor: int) -> None:
    """Become the user for good, then open the files, and answer with an error number for each, 0 for none. Exits."""
    try:
        with socket.socket(fileno=descriptor) as connection:
            order = b""
            while piece := connection.recv(_ANSWER_BYTES):
                order += piece
            uid, gid, groups, files = json.loads(order)
            if os.geteuid() != uid:
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
            opened = [_open(*each) for each in files]
            descriptors = [descriptor for descriptor, (number, trouble, *_) in opened if not number and not trouble]
            socket.send_fds(connection, [json.dumps([found for _, found in opened]).encode()], descriptors)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _open(path: str, writable: bool, form: str | None, folder: bool) -> tuple[int, _Found]:
    # Not to wait for a pipe's other end, nor to make a terminal ours; links are followed with the user's rights.
    flags = (os.O_RDWR if writable and not folder else os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
        status = os.fstat(descriptor)
        fits = (stat.S_ISDIR,) if folder else (stat.S_ISREG, stat.S_ISBLK)
        if not any(is_such(status.st_mode) for is_such in fits):
            what = "is not a folder" if folder else "is neither a file nor a block device"
            return descriptor, (0, what, 0, 0, 0)
        if folder and writable and not os.access(path, os.W_OK | os.X_OK):
            return descriptor, (0, "is a folder in which this user cannot make files", 0, 0, 0)
        trouble = _unfit(descriptor)
        if trouble:
            return descriptor, (0, trouble, 0, 0, 0)
        header = b"" if form is None else os.pread(descriptor, HEADER_BYTES, 0)
        length = 0 if folder else os.lseek(descriptor, 0, os.SEEK_END)
    except OSError as error:
        return -1, (error.errno or errno.EIO, "", 0, 0, 0)
    except ValueError:
        return -1, (errno.EINVAL, "", 0, 0, 0)
    kind = None if form is None else DiskFormat(form)
    trouble = image_trouble(header, kind)
    size = length if trouble or kind is None else image_size(header, kind, length)
    return descriptor, (0, trouble, status.st_dev, status.st_ino, size)


def _unfit(descriptor: int) -> str:
    """Say so of a file that is something else for each who reads it, or that could keep the daemon waiting."""
    status = (ctypes.c_long * 64)()  # struct statfs, whose first member is the type, and which is shorter
    if ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, status) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if status[0] in _PSEUDO:
        return "is the kernel's own, and neither an image nor a folder of files"
    return "is on a FUSE file system, whose owner the daemon would have to wait for" if status[0] == _FUSE else ""


def _main(arguments: Sequence[str]) -> None:
    number, limit, cores = arguments
    if cores:
        rooms.leave()
        with contextlib.suppress(OSError):  # it is slower elsewhere, not wrong
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    with socket.socket(fileno=int(number)) as connection:
        _serve(connection, float(limit))


if __name__ == "__main__":
    _main(sys.argv[1:])

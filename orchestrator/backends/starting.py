"""Starts back ends: each a child that becomes the guest's owner, shuts itself in, and executes the program.

It stands on the service core before it begins. Which process it is has been noted before it is anything else, so that
whoever comes after us finds it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from orchestrator.backends.messages import NOTE, SOCKET, Order, Wanted
from orchestrator.core.backends import FIRST_FILE, FOLDER, LAYER_SUFFIX, Kind
from orchestrator.core.backends import SOCKET as SOCKET_NUMBER
from orchestrator.errors import FailedError
from orchestrator.process_identity import identity
from orchestrator.rights import rights

_PR_SET_DUMPABLE, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 23, 24, 38  # prctl(2)
_CAP_DAC_OVERRIDE = 1  # linux/capability.h
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x40000000  # unshare(2)
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 1 << 14, 1 << 18  # mount(2)
_KEPT_FLAGS = {  # what a mount has stays with it: statvfs(3) to mount(2)
    os.ST_NOSUID: 2,
    os.ST_NODEV: 4,
    os.ST_NOEXEC: 8,
    os.ST_NOATIME: 1024,
    os.ST_NODIRATIME: 2048,
    os.ST_RELATIME: 1 << 21,
}

_KEEPS: Mapping[Kind, Callable[[int], bool]] = {
    Kind.DISK: lambda capability: capability == _CAP_DAC_OVERRIDE,  # root's guests may have anybody's images
    Kind.SHARE: lambda _: True,  # they are for a namespace of its own, where it drops most
    Kind.TPM: lambda capability: capability == _CAP_DAC_OVERRIDE,
}
"""What a program that root starts for himself may keep of his capabilities."""

_OUT_OF_THE_WAY = 64
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

_libc = ctypes.CDLL(None, use_errno=True)


class _User(NamedTuple):
    uid: int
    gid: int
    groups: Sequence[int]


def start_all(order: Order) -> None:
    """Start all, or none: FailedError says why one could not be. What they have to say goes where our own errors go."""
    owner = None if order.owner is None else _User(*rights(order.owner))
    started: list[int] = []
    try:
        for wanted in order.wanted:
            started.append(_start(order, wanted, owner))
    except BaseException:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
        raise


def _start(order: Order, wanted: Wanted, owner: _User | None) -> int:
    """Start one, and return its pid when it executes its program."""
    back_end = wanted.back_end
    with contextlib.ExitStack() as held:
        place = f"{order.directory}/{back_end.name}{SOCKET}"
        waiting = held.enter_context(_listening(place, order.user))
        numbers = [waiting.fileno(), *(held.enter_context(_opened(*file, owner)) for file in back_end.files)]
        own = held.enter_context(_own_folder(order.directory, back_end.folder, owner))
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            _become(order.directory, wanted, numbers, own, owner, told)
        os.close(told)
        with os.fdopen(heard, "rb") as report:
            trouble = report.read().decode("utf-8", "replace")
    if trouble:
        os.waitpid(child, 0)
        raise FailedError(f"{back_end.kind}, the back end {back_end.name}: {trouble}")
    return child


@contextlib.contextmanager
def _listening(path: str, user: int | None) -> Iterator[socket.socket]:
    """Listen at a path on which QEMU's user alone may call."""
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(path)
        if user is not None:
            os.chown(path, user, -1)
        waiting.listen(1)
        yield waiting


@contextlib.contextmanager
def _opened(path: str, writable: bool, owner: _User | None) -> Iterator[int]:
    """Open a file of the run directory; a layer becomes its owner's, who opens it anew by its number."""
    descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        if owner is not None and path.endswith(LAYER_SUFFIX):
            os.fchown(descriptor, owner.uid, owner.gid)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _own_folder(directory: str, folder: str, owner: _User | None) -> Iterator[int | None]:
    """Make and open a folder in the run directory, where the back end wants one there."""
    if not folder or folder.startswith("/"):
        yield None
        return
    path = f"{directory}/{folder}"
    Path(path).mkdir(mode=0o700)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# In the child: nothing is raised beyond `_become`.


def _become(
    directory: str, wanted: Wanted, numbers: Sequence[int], own: int | None, owner: _User | None, told: int
) -> NoReturn:
    """Become the back end, or tell why not. Never returns."""
    try:
        os.setsid()
        Path(f"{directory}/{wanted.back_end.name}{NOTE}").write_text(identity(os.getpid()))
        told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
        own = None if own is None else fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
        _hand_over(numbers)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # who hears its errors may end before it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        _take(owner, wanted.back_end.kind)
        _shut_in(wanted, own)
        os.execve(wanted.program, [wanted.program, *wanted.back_end.arguments], _ENVIRONMENT)
    except OSError as error:
        os.write(told, f"{error.filename or 'it'}: {error.strerror}".encode())
    except BaseException as error:
        os.write(told, str(error).encode())
    os._exit(1)


def _hand_over(numbers: Sequence[int]) -> None:
    """Have descriptors where the program looks for them; there is nothing to read, and all that it says is an error."""
    aside = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for number in numbers]
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    os.dup2(2, 1)
    for place, number in enumerate(aside, start=SOCKET_NUMBER):
        os.dup2(number, place)
    assert FIRST_FILE == SOCKET_NUMBER + 1


def _take(owner: _User | None, kind: Kind) -> None:
    """Take the rights that it is to have, for good."""
    if os.geteuid() == 0 and kind is Kind.SHARE:
        os.setgroups([])  # it would drop them itself, and may not where it is no root but of its own namespace
    elif kind is Kind.SHARE and os.getgroups():
        raise FailedError(
            "it drops the further groups of its user (`id -G`), which is for root to do; a daemon of root's can have it"
        )
    if owner is not None and owner.uid != os.geteuid():
        if kind is not Kind.SHARE:
            os.setgroups(owner.groups)
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
        _do(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))  # else its /proc files are root's
    elif os.geteuid() == 0:
        number = 0
        while (there := _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:  # beyond the last the kernel says no
            if there and not _KEEPS[kind](number):
                _do(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
            number += 1
    _do(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _shut_in(wanted: Wanted, own: int | None) -> None:
    """Go into its folder; what is shared gets mounts and a network of its own, and a root that is its owner outside."""
    back_end = wanted.back_end
    if back_end.kind is Kind.SHARE:
        uid, gid = os.geteuid(), os.getegid()
        _do(_libc.unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWNET | _NEWUSER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1\n")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1\n")
    if own is not None:
        os.fchdir(own)
    elif back_end.folder:
        os.chdir(back_end.folder)
        if back_end.readonly:
            _make_readonly()
    if back_end.folder:
        os.dup2(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), FOLDER)


def _make_readonly() -> None:
    """Have the working directory, and all below it, be such that nobody here can write to it."""
    here = os.fsencode(Path.cwd())
    flags = sum(mounts for stat, mounts in _KEPT_FLAGS.items() if os.statvfs(".").f_flag & stat)
    _do(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _do(_libc.mount(here, here, None, _MS_BIND, None))
    _do(_libc.mount(b"none", here, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags, None))
    os.chdir(here)
    if not os.statvfs(".").f_flag & os.ST_RDONLY:
        raise FailedError(f"{os.fsdecode(here)} cannot be made read-only")


def _do(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

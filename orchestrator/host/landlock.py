"""Landlock: what a thread, and all that it starts from then on, may do with files, whoever it is (landlock(7)).

It also keeps them from whoever is outside of that: no other process can be traced, nor its memory be read, nor be sent
a signal from version 6 on. Sockets that have a name among the files are as open as their permissions are. The kernel
does not tell afterwards who is restricted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Mapping
from enum import IntFlag

from orchestrator.errors import HostError

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, on every architecture
_VERSION = 1  # of landlock_create_ruleset's flags
_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_RULE = struct.Struct("=Qi")
_ATTRIBUTES = struct.Struct("=QQQ")  # files, network, what stays within
_SIZES = {1: 8, 4: 16, 6: 24}  # bytes of it, and since which version
_NETWORK, _TCP = 4, 3  # since version 4: to bind to a port, and to connect to one
_SCOPES, _WITHIN = 6, 3  # since version 6: abstract sockets, and signals
_O_PATH = os.O_PATH | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class Access(IntFlag):
    """What can be done beneath a path; the bits are the kernel's (linux/landlock.h)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14


_SINCE = {1: Access.MAKE_SYM, 2: Access.REFER, 3: Access.TRUNCATE}
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE

READ = Access.READ_FILE | Access.READ_DIR
PROGRAMS = READ | Access.EXECUTE
DEVICE = Access.READ_FILE | Access.WRITE_FILE
ALL = Access(2 * Access.TRUNCATE - 1) & ~(Access.EXECUTE | Access.MAKE_CHAR | Access.MAKE_BLOCK)
"""All but what nobody does with data: to execute it, and to make devices."""


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 if it has none, or was booted without it."""
    return max(0, int(_libc.syscall(_CREATE, None, 0, _VERSION)))


def restrict(allowed: Mapping[str, Access], *, network: bool = True) -> None:
    """Let this thread, and whatever it starts, use these paths and what is beneath them, and no other file.

    Paths that are not there are left out. Without `network` it has no TCP either, from version 4 on. HostError if the
    kernel refuses: then nothing is restricted.
    """
    abi = version()
    known = _known(abi)
    tcp = _TCP if abi >= _NETWORK and not network else 0
    attributes = _ATTRIBUTES.pack(known, tcp, _WITHIN if abi >= _SCOPES else 0)
    size = max(bytes_ for since, bytes_ in _SIZES.items() if since <= abi)
    ruleset = _called("made", _CREATE, ctypes.c_char_p(attributes), size, 0)
    try:
        for path, access in allowed.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _allow(ruleset, path, access & known)
        _called("applied", _RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def merged(*parts: Iterable[tuple[str, Access]]) -> dict[str, Access]:
    """Return rules of which those for the same path are one."""
    found: dict[str, Access] = {}
    for path, access in (rule for part in parts for rule in part):
        found[path] = found.get(path, Access(0)) | access
    return found


def _known(abi: int) -> Access:
    """Return what this version knows of; what it does not know it neither allows nor refuses."""
    last = max((_SINCE[number] for number in _SINCE if number <= abi), default=None)
    if last is None:
        raise HostError(
            "the kernel has no Landlock to restrict a guest's QEMU to its own files; boot with lsm=landlock"
        )
    return Access(2 * last - 1)


def _allow(ruleset: int, path: str, access: Access) -> None:
    handle = os.open(path, _O_PATH)
    try:
        is_directory = os.path.isdir(f"/proc/self/fd/{handle}")  # noqa: PTH112 (of what was opened, not of a name)
        rule = _RULE.pack(access if is_directory else access & _OF_FILES, handle)
        _called(f"told of {path}", _ADD, ruleset, _BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(handle)


def _called(what: str, number: int, *arguments: object) -> int:
    done = int(_libc.syscall(number, *arguments))
    if done < 0:
        raise HostError(f"a Landlock ruleset cannot be {what}: {os.strerror(ctypes.get_errno())}")
    return done

"""The append-only flag of a file (FS_APPEND_FL, ioctl_iflags(2)): until it is taken off, nobody cuts or rewrites it."""

from __future__ import annotations

import fcntl
import os
import struct

_GET, _SET = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of linux/fs.h on 64-bit machines
_APPEND = 0x20
_FLAGS = struct.Struct("i")  # the kernel reads and writes an int, whatever the numbers above say


def set_append_only(descriptor: int, wanted: bool) -> str:
    """Set the flag on an open file, or take it off; say why if that cannot be.

    Only who has CAP_LINUX_IMMUTABLE may. While it is set nobody may truncate, rename or delete the file either.
    """
    try:
        (flags,) = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET, bytes(_FLAGS.size)))
        changed = flags | _APPEND if wanted else flags & ~_APPEND
        if changed != flags:
            fcntl.ioctl(descriptor, _SET, _FLAGS.pack(changed))
    except OSError as error:
        return error.strerror or os.strerror(error.errno or 0)
    return ""


def is_append_only(descriptor: int) -> bool:
    """Tell whether the flag is set; False where there is none."""
    try:
        (flags,) = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET, bytes(_FLAGS.size)))
    except OSError:
        return False
    return bool(flags & _APPEND)

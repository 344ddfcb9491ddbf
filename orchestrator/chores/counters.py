"""Numbers that the chores process shows the scheduler in shared memory: reading them costs no system call."""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

_FORM = struct.Struct("@5Q")  # native: each number is written and read as one word


class Counts(NamedTuple):
    """Records that are `durable`, and that were `lost`; the same of serial logs, in bytes; and the disk's last errno.

    `errno` is 0 while nothing is wrong.
    """

    durable: int = 0
    lost: int = 0
    serial_bytes: int = 0
    serial_lost: int = 0
    errno: int = 0


class Counters:
    """A page of memory with the counts, shared by whoever has its file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _FORM.size)

    def show(self, counts: Counts) -> None:
        """Let everybody see these."""
        _FORM.pack_into(self._memory, 0, *counts)

    def read(self) -> Counts:
        """Return what is shown."""
        return Counts(*_FORM.unpack_from(self._memory))


def make_counters() -> int:
    """Return the descriptor of a new page, all zeros."""
    descriptor = os.memfd_create("chores")
    os.ftruncate(descriptor, _FORM.size)
    return descriptor

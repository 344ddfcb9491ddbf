"""What is in the header of a disk image."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from orchestrator.core.model import DiskFormat
from orchestrator.errors import HostError

_QCOW2 = struct.Struct(">4sI16xQ")  # magic, version, ..., virtual size: "The QCOW2 header" in QEMU's docs/interop
_MAGIC = b"QFI\xfb"
_BASE = struct.Struct(">8xQI")  # where the name of the image begins that it is based on, and how long that is
_LONGEST = 1023  # of that name
_MOST_BASES = 64


def virtual_size(path: str, form: DiskFormat) -> int:
    """Return how large a guest sees this image, in bytes: what it can grow to. HostError if that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if form is DiskFormat.RAW:
                return os.lseek(descriptor, 0, os.SEEK_END)  # of block devices too
            header = os.pread(descriptor, _QCOW2.size, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from None
    if len(header) < _QCOW2.size or not header.startswith(_MAGIC):
        raise HostError(f"{path}: is no qcow2 image; its disk's format may be raw")
    return int(_QCOW2.unpack(header)[2])


def bases(path: str) -> list[str]:
    """Return the files that an image is based on, the next one first; what cannot be read is based on nothing.

    QEMU takes a name that is relative from where the image is that has it.
    """
    found: list[str] = []
    while len(found) < _MOST_BASES and (base := _base(path)) is not None:
        path = os.path.normpath(Path(path).parent / base)
        found.append(path)
    return found


def _base(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            header = file.read(_QCOW2.size)
            if len(header) < _QCOW2.size or not header.startswith(_MAGIC):
                return None
            where, length = _BASE.unpack_from(header)
            file.seek(where)
            return os.fsdecode(file.read(min(length, _LONGEST))) if where and length else None
    except OSError:
        return None

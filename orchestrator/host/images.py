"""What is in the header of a disk image."""

from __future__ import annotations

import os
import struct

from orchestrator.core.model import DiskFormat
from orchestrator.errors import HostError

_QCOW2 = struct.Struct(">4sI16xQ")  # magic, version, ..., virtual size: "The QCOW2 header" in QEMU's docs/interop
_MAGIC = b"QFI\xfb"


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

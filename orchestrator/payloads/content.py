"""What is in files: cloned or copied, hashed, and held still meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
from collections.abc import Iterator

from orchestrator.errors import RefusedError

_FICLONE = 0x40049409  # linux/fs.h
_PIECE = 1 << 20


def take(source: int, target: int, most: int) -> tuple[str, int]:
    """Clone or copy what is in `source`, at most so much; return digest and size of what is in `target` then."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM):
            raise
    else:
        size = os.fstat(target).st_size
        return digest_of(target, size), size
    hashed, size = hashlib.sha256(), 0
    os.lseek(source, 0, os.SEEK_SET)
    while piece := os.read(source, _PIECE):
        size += len(piece)
        if size > most:
            raise RefusedError("the file grew while it was added, beyond what its owner may keep")
        hashed.update(piece)
        written = memoryview(piece)
        while written:
            written = written[os.write(target, written) :]
    return hashed.hexdigest(), size


def digest_of(handle: int, size: int) -> str:
    """Return the SHA-256 of the first `size` bytes, or of as many as there are."""
    hashed, at = hashlib.sha256(), 0
    while at < size and (piece := os.pread(handle, min(_PIECE, size - at), at)):
        hashed.update(piece)
        at += len(piece)
    return hashed.hexdigest()


def is_zero(handle: int, at: int) -> bool:
    """Say whether only zeros follow; holes, of which most of it is made, are not read."""
    while True:
        try:
            at = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise
        piece = os.pread(handle, _PIECE, at)
        if any(piece):
            return False
        at += len(piece)


@contextlib.contextmanager
def unwritten(handle: int) -> Iterator[bool]:
    """Let others wait who want to open a file for writing; False if that cannot be had: somebody has done so."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # is ignored, unlike SIGIO, when somebody waits
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)

"""Serial logs: what QEMU appends to a file on a tmpfs is copied to the disk, and then freed from the tmpfs.

Freeing punches a hole (fallocate(2), FALLOC_FL_PUNCH_HOLE): the file keeps its length and every later byte its offset,
so a writer that appends meanwhile loses nothing, and a reader of the end goes on where it was. Truncating to zero
would lose what is written between the last copy and the cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path

from orchestrator.chores.files import open_append, rotate, rotated

_PAGE = 4096
_CHUNK = 256 * 1024  # bytes copied at a time
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # <linux/falloc.h>
_MARK_BYTES = 128

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Ring:
    """The kept end of a log: ``PATH`` and, before it, ``PATH.1``, each at most half of `limit` bytes long."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._most = max(1, limit // 2)
        self._descriptor = -1
        self.size = self.inode = 0
        self._begin()

    def make_room(self) -> bool:
        """Begin a new file if this one is full, and tell whether that was done."""
        if self.size < self._most:
            return False
        descriptor, self._descriptor = self._descriptor, -1
        rotate(self._path, descriptor)
        self._begin()
        return True

    def write(self, data: bytes) -> int:
        """Append as much as there is room for in this file and on the disk; return how much that was."""
        written = os.write(self._descriptor, data[: self._most - self.size])
        self.size += written
        return written

    def sync(self) -> None:
        """Make what was written durable."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of it; it cannot be used any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> None:
        self._descriptor = open_append(self._path)
        status = os.fstat(self._descriptor)
        self.size, self.inode = status.st_size, status.st_ino


class Follower:
    """Keeps the last `limit` bytes of the file `source` in a ring at `path`, and little more of it in `source` itself.

    `source` may come later, go, or be made anew; what was kept stays. ``PATH.mark`` says to which byte of which source
    the ring's first belongs, so that another process can go on exactly where this one was killed. `copied` counts the
    bytes that are durable, `lost` those that the limit took away before they were.
    """

    def __init__(self, source: Path, path: Path, limit: int) -> None:
        self.copied = self.lost = 0
        self._source = source
        self._path = path
        self._limit = limit
        self._ring: Ring | None = None
        self._descriptor: int | None = None
        self._at: int | None = None  # up to where the open source is in the ring; None: to be looked up
        self._kept = 0  # where that begins which the tmpfs still has of it
        self._written = 0  # bytes in the ring that may not be durable yet

    def poll(self) -> bool:
        """Copy what is new; return whether that was so much that the next look should come soon.

        Raises OSError for what the disk refuses; the next call goes on from there.
        """
        busy = False
        for _ in range(2):  # the rest of a file that was replaced, then the one that is there now
            if self._descriptor is None:
                self._descriptor = self._open()
            if self._descriptor is None:
                return busy
            try:
                busy = self._copy(self._descriptor) or busy
            except OSError:
                self._close_ring()  # to be found as it is the next time
                raise
            if self._is_current(self._descriptor):
                return busy
            self._close_source()
        return busy

    def close(self) -> None:
        """Let go of all files."""
        self._close_source()
        self._close_ring()

    def _open(self) -> int | None:
        """Open the source; None if it is not there."""
        try:
            # A guest's QEMU may own the directory: neither a link nor a pipe of its making shall be followed.
            descriptor = os.open(self._source, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._kept = _first_data(descriptor, status.st_size)
        return descriptor

    def _copy(self, descriptor: int) -> bool:
        size = os.fstat(descriptor).st_size
        if size < max(self._kept, self._at or 0):  # somebody cut it
            self._at = self._kept = 0
        try:
            ring = self._take_up(descriptor, size)
            begin = self._at or 0
            self._append(descriptor, size, ring)
        finally:
            if size - self._kept > self._limit:
                # What is copied may go, but for some of the end, for who reads it there; else only what is too much.
                self._free(descriptor, max(min(self._at or 0, size - self._limit // 2), size - self._limit))
        return size - begin > self._limit // 2

    def _take_up(self, descriptor: int, size: int) -> Ring:
        """Return the ring, with `_at` where copying goes on: past what the limit has taken away meanwhile."""
        ring, opened = self._ring, self._ring is None
        if ring is None:
            ring = self._ring = Ring(self._path, self._limit)
        known = self._at if self._at is not None else self._marked(os.fstat(descriptor), ring)
        begin = max(known, self._kept, size - self._limit)
        self.lost += begin - known
        if opened or begin != self._at:
            self._mark(descriptor, ring, begin)
        self._at = begin
        return ring

    def _append(self, descriptor: int, size: int, ring: Ring) -> None:
        at = self._at or 0
        while at < size:
            if ring.make_room():
                self._mark(descriptor, ring, at)
            written = ring.write(os.pread(descriptor, min(_CHUNK, size - at), at))
            self._at = at = at + written
            self._written += written
        if self._written:
            ring.sync()
            self.copied += self._written
            self._written = 0

    def _free(self, descriptor: int, end: int) -> None:
        """Give the pages before `end` back to the tmpfs."""
        end -= end % _PAGE
        if end > self._kept:
            if _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, end) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            self._kept = end

    def _is_current(self, descriptor: int) -> bool:
        """Tell whether the open source is still what is at its path."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._source.lstat())
        except OSError:
            return False

    def _close_source(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._at = None

    def _close_ring(self) -> None:
        if self._ring is not None:
            self._ring.close()
        self._ring = None

    def _mark(self, descriptor: int, ring: Ring, at: int) -> None:
        """Note which byte of the source is the first in ``PATH``: that stays true while bytes are appended.

        One short write in place, which needs no new room. Without a mark, all that the source has is copied again.
        """
        status = os.fstat(descriptor)
        text = f"{status.st_dev} {status.st_ino} {at - ring.size} {ring.inode}"
        with contextlib.suppress(OSError):
            handle = os.open(f"{self._path}.mark", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, text.ljust(_MARK_BYTES).encode(), 0)
            finally:
                os.close(handle)

    def _marked(self, source: os.stat_result, ring: Ring) -> int:
        """Return up to which byte this source is in the ring; if nobody knows, its first that is still there."""
        try:
            device, inode, first, file = map(int, Path(f"{self._path}.mark").read_text("ascii").split())
            at = first + ring.size
            if file != ring.inode:  # killed between beginning a new file and marking it
                before = rotated(self._path).stat()
                at = at + before.st_size if before.st_ino == file else -1
        except (OSError, ValueError):
            return self._kept
        return at if (device, inode) == (source.st_dev, source.st_ino) and 0 <= at <= source.st_size else self._kept


def _first_data(descriptor: int, size: int) -> int:
    """Return where the first byte is that is not in a hole."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError:  # nothing but a hole
        return size

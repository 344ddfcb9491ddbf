"""Payloads in huge pages: copies on a hugetlbfs, made when a guest first wants one, for all that map it after that.

Such a file system is memory: the content stays in the store, and what is read there to be copied is not kept in memory
besides. Its pages are nobody else's as long as the copy is there, and a reboot ends it.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.payloads import Payload
from orchestrator.errors import HostError

_PIECE = 1 << 20
_FOLDER = "orchestrator-payloads"


def mounted(table: Path = Path("/proc/mounts")) -> dict[int, Path]:
    """Return where huge pages of each size, in bytes, can be had as files: the first place of each."""
    found: dict[int, Path] = {}
    for line in table.read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "hugetlbfs":
            place = Path(path.encode().decode("unicode_escape"))
            found.setdefault(os.statvfs(place).f_bsize, place)
    return found


def huge_length(payload: Payload, pages: int) -> int:
    """Return the length of a payload's copy: both are powers of two."""
    return max(payload.length, pages)


@dataclass(frozen=True, slots=True)
class HugeFiles:
    """The copies of one store, which is at `root`."""

    root: Path
    mounts: Callable[[], Mapping[int, Path]] = mounted

    def path(self, pages: int, name: Path) -> Path:
        """Return where a copy is, or will be; HostError if there is no hugetlbfs of such pages."""
        place = self.mounts().get(pages)
        if place is None:
            raise HostError(
                f"no hugetlbfs of {pages >> 10} KiB pages is mounted, for a window of such; "
                f"mount -t hugetlbfs -o pagesize={pages >> 10}K none /dev/hugepages"
            )
        return self._folder(place) / name

    def copy(self, source: Path, payload: Payload, pages: int, target: Path) -> None:
        """Make a copy, whole or not at all. HostError if there are not enough huge pages for it."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside, length = target.with_name(f".{secrets.token_hex(8)}"), huge_length(payload, pages)
        handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _reserve(handle, payload, length, pages)
            with source.open("rb") as content, mmap.mmap(handle, length) as memory:
                at = 0
                while piece := content.read(_PIECE):
                    memory[at : at + len(piece)] = piece
                    at += len(piece)
                os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.fchmod(handle, 0o400)
            aside.rename(target)
        finally:
            os.close(handle)
            aside.unlink(missing_ok=True)

    def all(self) -> Iterator[Path]:
        """Yield all that is there of this store, what was left by who was killed too."""
        for place in self.mounts().values():
            yield from self._folder(place).glob("*/*")

    def drop(self, name: Path) -> None:
        """Remove the copies of a payload; guests that map one keep it."""
        for place in self.mounts().values():
            (self._folder(place) / name).unlink(missing_ok=True)

    def unused(self, wanted: Collection[Path], digests: Collection[str]) -> Iterator[Path]:
        """Yield copies of what the store has not, by name, or nobody maps, by digest; who loads one holds the lock."""
        for path in self.all():
            if Path(path.parent.name, path.name) not in wanted or path.name not in digests:
                yield path

    def folders(self) -> list[str]:
        """Return below which directories files of this store can be."""
        return [str(self._folder(place)) for place in self.mounts().values()]

    def _folder(self, place: Path) -> Path:
        return place / _FOLDER / hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]


def _reserve(handle: int, payload: Payload, length: int, pages: int) -> None:
    """Have all pages now: who writes to one that cannot be had is killed."""
    try:
        os.posix_fallocate(handle, 0, length)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise HostError(
            f"{payload.owner}/{payload.name}: {length // pages} huge pages of {pages >> 10} KiB are wanted for it, and "
            "not so many are free; `payload gc` frees those of payloads that nobody maps, vm.nr_hugepages has more"
        ) from None

"""A disk that can be filled and emptied again: a real tmpfs for root, else a limit on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SIZE = 1 << 20


class SmallDisk:
    """`path` is a directory on it."""

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path = path
        self._mounted = mounted

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let nothing more be written; where files are limited, no more than a few bytes after the largest one."""
        if self._mounted:
            filler = self.path / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            try:
                yield
            finally:
                filler.unlink()
        else:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            largest = max((file.stat().st_size for file in self.path.iterdir()), default=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 9, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(kind: str, path: Path) -> Iterator[SmallDisk]:
    """Give a disk of this kind, mounted at `path` if it is a tmpfs."""
    if kind != "tmpfs":
        yield SmallDisk(path, mounted=False)
        return
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "small", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield SmallDisk(path, mounted=True)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


DISKS = pytest.mark.parametrize("kind", ["limit", "tmpfs"])

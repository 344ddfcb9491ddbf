"""What the chores have kept of a serial log's beginning, after they took it out of memory.

``NAME.log`` and before it ``NAME.log.1`` have the last of it; ``NAME.log.mark`` says to which byte of which source
the first byte of ``NAME.log`` belongs.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.ports import SerialText


def kept_text(folder: Path, name: str, source: Path, start: int, most: int = -1) -> SerialText | None:
    """Return what is kept of what `source` had from byte `start` on and has no more; None if nothing is."""
    try:
        with source.open("rb") as log:
            status = os.fstat(log.fileno())
            missing_to = _first_data(log.fileno(), start, status.st_size)
        device, inode, first, file = map(int, (folder / f"{name}.log.mark").read_text("ascii").split())
        if (device, inode) != (status.st_dev, status.st_ino) or missing_to <= start:
            return None
        current, before = folder / f"{name}.log", folder / f"{name}.log.1"
        if current.stat().st_ino != file:  # the chores are just beginning a new one
            return None
        length = before.stat().st_size if before.exists() else 0
        for begin, path in ((first - length, before), (first, current)):
            text = _part(path, begin, start, missing_to, most)
            if text is not None:
                return text
    except (OSError, ValueError):  # nobody has kept anything, or it is not ours to read
        return None
    return None


def _part(path: Path, begin: int, start: int, end: int, most: int) -> SerialText | None:
    """Return what a file whose first byte is number `begin` has between two others."""
    at = max(start, begin)
    if not path.exists() or at >= end:
        return None
    with path.open("rb") as file:
        file.seek(at - begin)
        text = file.read(end - at if most < 0 else min(most, end - at))
    return SerialText(text, at + len(text)) if text else None


def _first_data(descriptor: int, start: int, size: int) -> int:
    """Return where the first byte is, from `start` on, that is not in a hole."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA)
    except OSError:
        return size

"""Files that are appended to, and set aside when they are full; their owner alone may read them."""

from __future__ import annotations

import os
from pathlib import Path


def open_append(path: Path) -> int:
    """Return the descriptor of a file to append to and to read, made if it is not there; its name is durable."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if new:
        _sync_directory(path)
    return descriptor


def rotate(path: Path, descriptor: int) -> None:
    """Make what was appended durable, close it, and have it under ``PATH.1`` in place of what was there."""
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    path.rename(rotated(path))
    _sync_directory(path)


def rotated(path: Path) -> Path:
    """Return where a full file goes."""
    return path.with_name(f"{path.name}.1")


def _sync_directory(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

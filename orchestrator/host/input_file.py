"""Reads what a user names on the command line: a file, or a pipe from another command.

What has no end (a device) or never begins (a pipe into which nobody writes) is an error and not a wait. What
the bytes mean is for others.
"""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

from orchestrator.errors import UsageError

PATIENCE = 5.0
"""Seconds that a pipe has to give its first byte, or its end."""


def read_input(path: Path, most: int, patience: float = PATIENCE) -> bytes:
    """Return the bytes of a file or a pipe: at most `most` and one more, by which the caller sees that it is too long.

    Raises UsageError, with the path, for what cannot be read, is neither a file nor a pipe, or stays silent.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISFIFO(mode):
                _await_first(path, file.fileno(), patience)
            elif not stat.S_ISREG(mode):
                raise UsageError(f"{path}: is neither a file nor a pipe")
            text: bytes | None = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if text is None:  # some files of /proc are like this
        raise UsageError(f"{path}: has nothing to read now; give a file")
    return text


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _await_first(path: Path, pipe: int, patience: float) -> None:
    """Wait until a pipe has bytes or its writer has left, and let reads block from then on."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(patience * 1000):
        raise UsageError(f"{path}: nothing came through this pipe within {patience:g} s")
    os.set_blocking(pipe, True)

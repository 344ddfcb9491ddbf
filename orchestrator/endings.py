"""Processes that are ended by a handle, which never comes to mean another: a number may."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def handle_of(pid: int) -> Iterator[int | None]:
    """Give a pidfd of a process; None if there is none of this number."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened(pid: int, uuid: str) -> Iterator[int | None]:
    """Give a pidfd of the process `pid` if it is the QEMU of this domain, else None.

    The pidfd is opened before the identity is checked, so a reused pid is never hit.
    """
    with handle_of(pid) as handle:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            arguments = []
        yield handle if uuid.encode() in arguments else None


def end(handle: int, grace: float) -> bool:
    """End the process behind a pidfd, by force after `grace` seconds; return whether it ended within as many more."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return True
        if select.select([handle], [], [], grace)[0]:
            return True
    return False

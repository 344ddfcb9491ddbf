"""A guest's serial port on this terminal."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import FailedError, UsageError

_LEAVE = b"\x1d"  # Ctrl-], as telnet and virsh have it


def attach(path: Path) -> None:
    """Copy between the terminal and the serial socket until Ctrl-], the end of input, or the guest's end.

    UsageError if no guest listens there; FailedError if another console is attached already.
    """
    with _alone(path.parent), socket.socket(socket.AF_UNIX) as port:
        try:
            port.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise UsageError(f"{path}: no guest listens there; `orchestrator ps` shows which run") from None
        descriptor = sys.stdin.fileno()
        if not os.isatty(descriptor):
            _copy(port, descriptor)
            return
        sys.stderr.write("attached; Ctrl-] leaves\n")
        before = termios.tcgetattr(descriptor)
        try:
            tty.setraw(descriptor)
            _copy(port, descriptor)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the guest's run directory while attached: QEMU would leave a second console waiting without a word."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"{directory}: no guest has run here: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedError(f"{directory}: another console is attached to this guest") from None
        yield
    finally:
        os.close(handle)


def _copy(port: socket.socket, descriptor: int) -> None:
    while True:
        ready, _, _ = select.select([port.fileno(), descriptor], [], [])
        if port.fileno() in ready:
            data = port.recv(65536)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if descriptor in ready:
            typed = os.read(descriptor, 1024)
            before, leave, _ = typed.partition(_LEAVE)
            port.sendall(before)
            if leave or not typed:
                return

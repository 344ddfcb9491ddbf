"""A guest's serial port on this terminal."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from pathlib import Path

from orchestrator.errors import FailedError, UsageError

_LEAVE = b"\x1d"  # Ctrl-], as telnet and virsh have it


def attach(path: Path) -> None:
    """Copy between the terminal and the serial socket until Ctrl-], the end of input, or the guest's end.

    UsageError if no guest listens there; FailedError if another console is attached already.
    """
    with socket.socket(socket.AF_UNIX) as port:
        try:
            port.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise UsageError(f"{path}: no guest listens there; `orchestrator ps` shows which run") from None
        except BlockingIOError:
            raise FailedError(f"{path}: another console is attached to this guest") from None
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


def _copy(port: socket.socket, descriptor: int) -> None:
    while True:
        ready, _, _ = select.select([port, descriptor], [], [])
        if port in ready:
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

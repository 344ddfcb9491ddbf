"""A process that starts the scheduler anew: forked before the guard has threads, which never forks again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

from orchestrator.guard.watch import Command

_MOST_BYTES = 256 * 1024

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
"""The first three are the guard's; of the last one is heard when nobody waits for what was started."""


class Starter:
    """Starts what it is told to, each in a session of its own, and ends with the guard."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MOST_BYTES)
        if os.fork() == 0:
            self._ours.close()
            try:
                _serve(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def start(self, command: Command) -> None:
        """Have a command started, soon."""
        said = json.dumps([list(command.arguments), command.directory, command.environment]).encode()
        with contextlib.suppress(OSError):  # it is missed, and told of, when no heartbeat comes
            self._ours.send(said, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Let the process end."""
        self._ours.close()


def _serve(orders: socket.socket) -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    while said := orders.recv(_MOST_BYTES):
        arguments, directory, environment = json.loads(said)
        with contextlib.suppress(OSError):
            subprocess.Popen(
                arguments,
                cwd=directory,
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                preexec_fn=_obey_signals,  # noqa: PLW1509 (this process has one thread)
            )


def _obey_signals() -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)

"""The guard's socket: anybody may knock, so that whoever is refused is recorded; who is not root is not listened to.

A request is one packet and so is its reply (SOCK_SEQPACKET); one thread serves all, and waits for nobody.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path

from orchestrator.core.emergency import MOST_BYTES, Reply, Request, decode_request, encode_reply
from orchestrator.errors import HostError, UsageError
from orchestrator.guard.acts import Acts
from orchestrator.guard.callers import Caller, caller, credentials

_MOST_CALLERS = 16
"""So many of root's connections are held; one more, and the oldest is let go."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Console:
    """Listens at `path`. HostError if it cannot."""

    def __init__(self, path: Path, acts: Acts) -> None:
        self._acts = acts
        self._callers: dict[int, tuple[socket.socket, int, int, int]] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)[::-1]
        try:
            path.parent.mkdir(mode=0o711, exist_ok=True)
            path.parent.chmod(0o711)
            path.unlink(missing_ok=True)
            self._listener.bind(str(path))
            path.chmod(0o666)
            self._listener.listen(64)
        except OSError as error:
            raise HostError(f"{path}: the guard cannot listen there: {error.strerror}; give access") from None
        self._poll = select.poll()
        for handle in (self._listener.fileno(), self._woken):
            self._poll.register(handle, select.POLLIN)

    def serve(self) -> None:
        """Serve until `stop`."""
        while True:
            for handle, _ in self._poll.poll():
                if handle == self._woken:
                    return
                with contextlib.suppress(OSError):  # one connection's trouble is nobody else's
                    self._accept() if handle == self._listener.fileno() else self._hear(handle)

    def stop(self) -> None:
        """Have `serve` return."""
        os.write(self._wake, b"x")

    def close(self) -> None:
        """Let go of the socket and of all that are connected."""
        for handle in list(self._callers):
            self._let_go(handle)
        self._listener.close()
        os.close(self._wake)
        os.close(self._woken)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        pid, uid = credentials(connection)
        connected = time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _TICKS // 1_000_000_000
        if uid:
            with connection:
                reply = self._acts.refuse(caller(pid, uid, connected), f"user {uid} is not root")
                connection.shutdown(socket.SHUT_RD)
                while connection.recv(MOST_BYTES):
                    pass  # what is left unread as it is closed would have the reply thrown away
                connection.send(encode_reply(reply))
            return
        if len(self._callers) >= _MOST_CALLERS:
            self._let_go(next(iter(self._callers)))
        self._callers[connection.fileno()] = connection, pid, uid, connected
        self._poll.register(connection.fileno(), select.POLLIN)

    def _hear(self, handle: int) -> None:
        connection, *who = self._callers[handle]
        try:
            data = connection.recv(MOST_BYTES)
            if data:
                connection.send(encode_reply(self._answer(caller(*who), data)))
                return
        except OSError:
            pass
        self._let_go(handle)

    def _answer(self, who: Caller, data: bytes) -> Reply:
        try:
            request: Request = decode_request(data)
        except UsageError as error:
            return Reply(error.exit_code, (str(error),))
        return self._acts.obey(who, request)

    def _let_go(self, handle: int) -> None:
        self._poll.unregister(handle)
        self._callers.pop(handle)[0].close()

"""The scheduler's end: messages into a bounded queue, and from it into a socket, for as long as that takes them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.chores.counters import Counters
from orchestrator.chores.messages import LARGEST, AnyMessage, Dropped, Forget, Log, Lost, Metrics, Watch
from orchestrator.core.health import ChoresHealth

_SENDS = 32
"""The most messages that one call gives to the kernel: a full queue must not cost the caller a slice."""

_SOCKET_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32  # socket(7); the socket module has no name for it


class ChoresClient:
    """Implements the port `Chores`. `queue` is how many records may wait; what tells whom to watch always may."""

    def __init__(self, connection: socket.socket, counters: Counters, queue: int) -> None:
        self._socket = connection
        self._counters = counters
        self._most = queue
        self._queue: deque[tuple[bytes, int]] = deque()  # messages, and how many records each is: 1 or 0
        self._waiting = self._sent = self._dropped = 0
        self._unsaid = Counter[str]()
        self._serial_lost: dict[str, int] = {}
        self._alive = True
        self._encoder = msgspec.msgpack.Encoder(enc_hook=str)
        self._decoder = msgspec.msgpack.Decoder(Lost)
        connection.setblocking(False)
        _widen(connection)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to the event log, soon. One that is too long, or is not JSON, is dropped and counted too."""
        self._put("log", Log, record)

    def metrics(self, sample: Mapping[str, Any]) -> None:
        """Append a record to the log of metrics, soon."""
        self._put("metrics", Metrics, sample)

    def watch_serial(self, guest: str, path: str, limit: int) -> None:
        """Keep what is appended to this file, which may come later; at most `limit` bytes, the last ones."""
        self._tell(Watch(guest, path, limit))

    def forget_serial(self, guest: str) -> None:
        """Keep what is there still, then look no more."""
        self._tell(Forget(guest))

    def serial_lost(self, guest: str) -> int:
        """Return how many bytes of a guest's serial output could not be kept, since the process began."""
        self._hear()
        return self._serial_lost.get(guest, 0)

    def flush(self) -> None:
        """Give the process some of what waits, as far as the socket takes it."""
        if self._waiting < self._most:
            self._say_what_was_dropped()
        for _ in range(_SENDS):
            if not self._send():
                return

    def health(self) -> ChoresHealth:
        """Return how the chores are doing."""
        self.flush()
        counts = self._counters.read()
        return ChoresHealth(
            sent=self._sent,
            dropped=self._dropped,
            queue=self._waiting,
            durable=counts.durable,
            lost=counts.lost,
            serial_bytes=counts.serial_bytes,
            serial_lost=counts.serial_lost,
            alive=self._alive,
            trouble=os.strerror(counts.errno) if counts.errno else "",
        )

    def close(self, seconds: float) -> None:
        """Give the process all that waits, for at most so many seconds each, and hang up. Blocks."""
        if self._socket.fileno() < 0:
            return
        self._say_what_was_dropped()
        self._socket.settimeout(seconds)
        while self._send():
            pass
        self._socket.close()
        self._alive = False

    def _put(self, tag: str, kind: type[Log | Metrics], record: Mapping[str, Any]) -> None:
        self.flush()
        try:
            data = self._encoder.encode(kind(dict(record))) if self._waiting < self._most else b""
        except (TypeError, ValueError, OverflowError, RecursionError):
            data = b""
        if 0 < len(data) <= LARGEST:
            self._queue.append((data, 1))
            self._waiting += 1
            self._send()
        else:
            self._dropped += 1
            self._unsaid[tag] += 1

    def _tell(self, message: AnyMessage) -> None:
        self._queue.append((self._encoder.encode(message), 0))
        self.flush()

    def _hear(self) -> None:
        """Take in what the process has told."""
        with contextlib.suppress(OSError):  # nothing more is there, or nobody
            while data := self._socket.recv(LARGEST, socket.MSG_DONTWAIT):
                lost = self._decoder.decode(data)
                self._serial_lost[lost.guest] = lost.bytes

    def _say_what_was_dropped(self) -> None:
        for tag, count in self._unsaid.items():
            self._queue.append((self._encoder.encode(Dropped(tag, count)), 0))
        self._unsaid.clear()

    def _send(self) -> bool:
        """Give one message to the kernel, and tell whether that may be done again."""
        if not self._queue or not self._alive:
            return False
        data, records = self._queue[0]
        try:
            self._socket.send(data)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            self._alive = False  # what waits stays in the queue, where its length tells of it
            return False
        self._queue.popleft()
        self._waiting -= records
        self._sent += records
        return True


def _widen(connection: socket.socket) -> None:
    """Let the kernel keep more messages while the process waits for its disk; who may not ask gets what is allowed."""
    for option in (socket.SO_SNDBUF, _SO_SNDBUFFORCE):
        try:
            connection.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        except PermissionError:
            return

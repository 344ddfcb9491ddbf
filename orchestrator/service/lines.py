"""Connections before HTTP: how many there may be, counted by whom the kernel says is at the other end."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable

import msgspec

from orchestrator.service.callers import Peer
from orchestrator.service.limits import Lines
from orchestrator.service.messages import TooManyError, encode_error

_LINGER = 1.0
"""Seconds in which a caller who is refused may read why; he may be writing still."""

_TRY_AGAIN = 1.0  # seconds: nobody knows when another connection is closed


class Counted(asyncio.Protocol):
    """Passes a connection on to a protocol of `inner`, or tells who has too many that there can be no more."""

    def __init__(
        self, inner: Callable[[], asyncio.Protocol], lines: Lines, peer: Callable[[socket.socket], Peer]
    ) -> None:
        self._make = inner
        self._lines = lines
        self._peer = peer
        self._inner: asyncio.Protocol | None = None
        self._uid: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count a connection, if it is not root's or of the daemon's own user, and take it or refuse it."""
        assert isinstance(transport, asyncio.Transport)
        try:
            peer = self._peer(transport.get_extra_info("socket"))
        except OSError:  # it has been closed already
            transport.abort()
            return
        if not peer.is_trusted:
            why = self._lines.enter(peer.uid)
            if why:
                _refuse(transport, why)
                return
            self._uid = peer.uid
        self._inner = self._make()
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Count it no more."""
        if self._uid is not None:
            self._lines.leave(self._uid)
            self._uid = None
        if self._inner is not None:
            self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Pass on what comes; what a caller sends who was refused is of no interest."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on that no more comes."""
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the caller does not read as fast as is written."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the caller has read."""
        if self._inner is not None:
            self._inner.resume_writing()


def _refuse(transport: asyncio.Transport, why: str) -> None:
    status, body = encode_error(TooManyError(why, _TRY_AGAIN))
    content = msgspec.json.encode(body) + b"\n"
    head = (
        f"HTTP/1.1 {status} Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        f"Retry-After: {math.ceil(_TRY_AGAIN)}\r\nConnection: close\r\n\r\n"
    )
    transport.write(head.encode() + content)
    transport.write_eof()
    asyncio.get_running_loop().call_later(_LINGER, transport.abort)

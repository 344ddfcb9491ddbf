"""Guests' serial ports, each for its owner: their logs lie where only the daemon can read them."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from orchestrator.ports import SerialText
from orchestrator.service.callers import Peer
from orchestrator.service.desk import Desk


class Serials(Protocol):
    """What guests have printed, and a way to talk to them."""

    def log(self, guest: str, start: int, most: int) -> SerialText:
        """Return at most so many bytes of what a guest has printed, from byte `start` on. Blocks."""

    def attached(self, guest: str) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        """Attach to a guest's serial port, alone. UsageError if it has none now, FailedError if somebody is there."""


class SerialDesk:
    """Lets callers read, and type, where they may."""

    def __init__(self, desk: Desk, serials: Serials) -> None:
        self._desk = desk
        self._serials = serials

    def log(self, peer: Peer, name: str) -> Callable[[int, int], SerialText]:
        """Return what reads a guest's serial log: from a byte on, so many at most. It blocks."""
        self._desk.check(peer, name)
        return partial(self._serials.log, name)

    def prints(self, peer: Peer, name: str) -> bool:
        """Tell whether a guest may print more: it has not ended, and is still one of the caller's."""
        return peer.sees(self._desk.owner_of(name) or "") and not self._desk.has_ended(name)

    def console(self, peer: Peer, name: str) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        """Return what attaches to a guest's serial port."""
        self._desk.launched(peer, name)
        return self._serials.attached(name)

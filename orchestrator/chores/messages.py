"""What the scheduler tells the chores process: msgpack, one message a datagram."""

from __future__ import annotations

from typing import Any

import msgspec

LARGEST = 64 * 1024
"""The longest message, in bytes."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Any of the messages below."""


class Log(Message, frozen=True, tag="log"):
    """Append this to the event log."""

    record: dict[str, Any]


class Metrics(Message, frozen=True, tag="metrics"):
    """Append this to the log of metrics."""

    record: dict[str, Any]


class Dropped(Message, frozen=True, tag="dropped"):
    """So many records found the queue full; `log` is the tag of what they were."""

    log: str
    count: int


class Watch(Message, frozen=True, tag="watch"):
    """Keep what is appended to a guest's serial log at `path`, at most `limit` bytes of it."""

    guest: str
    path: str
    limit: int


class Forget(Message, frozen=True, tag="forget"):
    """Look no more at a guest's serial log."""

    guest: str


AnyMessage = Log | Metrics | Dropped | Watch | Forget


class Lost(Message, frozen=True, tag="lost"):
    """What the process tells: so many bytes of a guest's serial output were lost since it began."""

    guest: str
    bytes: int


class Hello(msgspec.Struct, frozen=True):
    """What the process answers when it has begun: what its user has to be told, or why it cannot work."""

    notes: tuple[str, ...] = ()
    failure: str = ""

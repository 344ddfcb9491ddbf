"""QEMU's answers to the commands of a hand-over, found among all else that it says without reading the rest.

Bytes go in and out, nothing is sent or awaited here. A line that is not ours is passed on as it came, to a client
that reads everything. Events that nobody hears are dropped unread: a guest can have QEMU tell of some as often as it
likes (that a crash kernel was loaded, a hundred thousand times a second), and the answer to a stop comes after them.
Growth: linear in the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

_PREFIX = "turn-"
_EVENT, _NAME = b'{"timestamp": ', b'"event": "'  # as QEMU writes an event; one written otherwise is passed on
_DONE, _END = b'{"return": {}, "id": "', b'"}\r'  # as QEMU writes an answer; one written otherwise is parsed


class Answer(NamedTuple):
    """What came of one command: QEMU's own words if it failed, else None."""

    id: str
    error: str | None


class Conversation:
    """Commands that were given, each with an id of its own, and are not answered yet.

    `heard` are the names of the events that somebody hears.
    """

    def __init__(self, heard: Iterable[str]) -> None:
        self._heard = frozenset(name.encode() for name in heard)
        self._given = 0
        self._awaited: set[str] = set()
        self._unfinished = b""

    def ask(self, command: str) -> tuple[str, bytes]:
        """Return the id of a command, which takes no arguments, and the line that gives it."""
        self._given += 1
        name = f"{_PREFIX}{self._given}"
        self._awaited.add(name)
        return name, b'{"execute": "%b", "id": "%b"}\n' % (command.encode(), name.encode())

    def hear(self, received: bytes) -> tuple[list[Answer], bytes]:
        """Return the answers among what was received, and the whole lines that are for others."""
        *lines, self._unfinished = (self._unfinished + received).split(b"\n")
        answers, rest = [], []
        for line in lines:
            if line.startswith(_EVENT):
                if line.partition(_NAME)[2].partition(b'"')[0] in self._heard:
                    rest.append(line + b"\n")
                continue
            answer = self._answer(line) if b'"turn-' in line else None
            if answer is not None:
                answers.append(answer)
            else:
                rest.append(line + b"\n")
        return answers, b"".join(rest)

    def _answer(self, line: bytes) -> Answer | None:
        if line.startswith(_DONE) and line.endswith(_END):
            done = line[len(_DONE) : -len(_END)].decode("utf-8", "replace")
            if done in self._awaited:
                self._awaited.remove(done)
                return Answer(done, None)
        try:
            message = json.loads(line)
        except ValueError:
            return None
        name = message.get("id") if isinstance(message, dict) else None
        if not isinstance(name, str) or name not in self._awaited or not message.keys() & {"return", "error"}:
            return None
        self._awaited.remove(name)
        return Answer(name, str(message["error"].get("desc", message["error"])) if "error" in message else None)

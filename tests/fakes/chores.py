"""The chores in memory: what is sent is durable at once, unless the process is told to stall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from orchestrator.core.health import ChoresHealth


class FakeChores:
    """`events` and `samples` are the two logs, `watched` guests with path and limit; a queue of `most` records.

    `losses` is how many bytes of each guest's serial output could not be kept.
    """

    def __init__(self, most: int = 1000) -> None:
        self.events: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.watched: dict[str, tuple[str, int]] = {}
        self.losses: dict[str, int] = {}
        self.stalled = False
        self._most = most
        self._queue: list[tuple[str, dict[str, Any]]] = []
        self._unsaid = Counter[str]()
        self._sent = self._dropped = 0

    def log(self, record: Mapping[str, Any]) -> None:
        self._put("log", record)

    def metrics(self, sample: Mapping[str, Any]) -> None:
        self._put("metrics", sample)

    def watch_serial(self, guest: str, path: str, limit: int) -> None:
        self.watched[guest] = (path, limit)

    def forget_serial(self, guest: str) -> None:
        self.watched.pop(guest, None)

    def serial_lost(self, guest: str) -> int:
        return self.losses.get(guest, 0)

    def flush(self) -> None:
        if self.stalled:
            return
        for tag, record in self._queue:
            self._log(tag).append(record)
        self._sent += len(self._queue)
        self._queue.clear()
        for tag, count in self._unsaid.items():
            self._log(tag).append({"kind": "dropped", "count": count})
        self._unsaid.clear()

    def health(self) -> ChoresHealth:
        self.flush()
        return ChoresHealth(
            sent=self._sent,
            dropped=self._dropped,
            queue=len(self._queue),
            durable=self._sent,
            lost=0,
            serial_bytes=0,
            serial_lost=sum(self.losses.values()),
            alive=True,
            trouble="",
        )

    def _put(self, tag: str, record: Mapping[str, Any]) -> None:
        self.flush()
        if len(self._queue) >= self._most:
            self._dropped += 1
            self._unsaid[tag] += 1
        else:
            self._queue.append((tag, dict(record)))
            self.flush()

    def _log(self, tag: str) -> list[dict[str, Any]]:
        return self.samples if tag == "metrics" else self.events

"""A wall clock on the virtual one, or on any other, which a test can set."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.ports import Clock


class FakeCalendar:
    """Shows `start` when the clock shows 0, and goes with it; in UTC."""

    def __init__(self, clock: Clock, start: datetime = datetime(2026, 3, 2, 12)) -> None:
        self.boot = "boot-1"
        self.start = start
        self._clock = clock

    def wall(self) -> int:
        return int((self.local() - datetime(1970, 1, 1)) / timedelta(microseconds=1)) * 1000

    def local(self) -> datetime:
        return self.start + timedelta(seconds=self._clock.now())

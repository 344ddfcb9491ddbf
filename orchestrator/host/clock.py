"""The real clock."""

from __future__ import annotations

import asyncio
import time


class MonotonicClock:
    """Seconds that no clock step changes."""

    def now(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Give way for this many seconds."""
        await asyncio.sleep(seconds)

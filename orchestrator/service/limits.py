"""What one user may ask for at once: a rate of requests, and a number of open connections. Nothing here waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

RATE = 20.0
"""Requests a second that a user may make in the long run."""

BURST = 100
"""Requests that a user may make at once, after a while of silence."""

MOST_CONNECTIONS = 32
"""Connections that a user may have open."""

MOST_IN_TOTAL = 256
"""Connections that all may have open together; those of root and the daemon's own user are not among them."""

_MOST_BUCKETS = 1024


class Buckets:
    """A bucket of tokens for each user: it fills at `rate` up to `burst`, and each request takes one.

    Buckets that are full again are thrown away now and then, so there are no more than users who ask.
    """

    def __init__(self, clock: Callable[[], float], rate: float = RATE, burst: int = BURST) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._buckets: dict[int, tuple[float, float]] = {}  # tokens, and when they were counted

    def take(self, uid: int) -> float:
        """Take a token, and return 0; or return in how many seconds there is one."""
        now = self._clock()
        if len(self._buckets) >= _MOST_BUCKETS:
            self._buckets = {each: had for each, had in self._buckets.items() if self._now(had, now) < self._burst}
        tokens = self._now(self._buckets.get(uid, (self._burst, now)), now)
        if tokens < 1:
            return (1 - tokens) / self._rate
        self._buckets[uid] = tokens - 1, now
        return 0.0

    def _now(self, had: tuple[float, float], now: float) -> float:
        tokens, counted = had
        return min(self._burst, tokens + max(0.0, now - counted) * self._rate)


class Lines:
    """Counts connections by user."""

    def __init__(self, most: int = MOST_CONNECTIONS, in_total: int = MOST_IN_TOTAL) -> None:
        self._most = most
        self._in_total = in_total
        self._open = Counter[int]()

    @property
    def total(self) -> int:
        """How many are open."""
        return self._open.total()

    def enter(self, uid: int) -> str:
        """Count one more connection of a user, and return ""; or say why there can be no more."""
        if self._open[uid] >= self._most:
            return f"you have {self._most} connections open, and may have no more; close some of them"
        if self._open.total() >= self._in_total:
            return f"{self._in_total} connections are open, and there may be no more; try again soon"
        self._open[uid] += 1
        return ""

    def leave(self, uid: int) -> None:
        """Count a connection no more."""
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]

"""What has come of each guest so far: turns, waits and troubles, counted from the scheduler's notices. Pure.

Times are nanoseconds of the scheduler's clock. `take` costs the same whatever was taken before; memory grows with the
guests that are kept, see `keep_only`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field

from orchestrator.core.orders import Happening, Notice

LATENCIES = (
    250_000,
    500_000,
    10**6,
    2 * 10**6,
    5 * 10**6,
    10**7,
    2 * 10**7,
    5 * 10**7,
    10**8,
    2 * 10**8,
    5 * 10**8,
    10**9,
)
"""Upper ends of the classes in which hand-overs are counted, in nanoseconds; the last class has none."""

_FAULTS = (
    Happening.QUARANTINED,
    Happening.DRIFT,
    Happening.UNDONE,
    Happening.WITHDRAWN,
    Happening.GONE,
    Happening.ASTRAY,
)


@dataclass(slots=True)
class Tally:
    """One guest's: `began` is when its present turn did, on so many `cores`; `ran` is core time of those before it.

    `turns` were begun and `waits` lasted `waited` together, the `longest` of them so long, and `nearest` is the
    greatest part of its bound that one has taken (1: all of it). `faults` counts what went wrong.
    """

    turns: int = 0
    ran: int = 0
    began: int | None = None
    cores: int = 0
    waits: int = 0
    waited: int = 0
    longest: int = 0
    nearest: float = 0.0
    faults: int = 0

    def ran_until(self, now: int) -> int:
        """Return the core time of all turns, the present one included."""
        return self.ran + (0 if self.began is None else self.cores * (now - self.began))


@dataclass(slots=True)
class Latencies:
    """How long hand-overs took: `counts` by class of `LATENCIES` and one more for what is longer, and all together."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCIES) + 1))
    total: int = 0

    def add(self, length: int) -> None:
        """Count one."""
        self.counts[bisect_left(LATENCIES, length)] += 1
        self.total += length


class Tallies:
    """Of all guests, by name. A hand-over is counted from the stop that is confirmed to the next run that is.

    Only those count for which somebody waited already when the cores became free, so idle cores are none.
    """

    def __init__(self) -> None:
        self.guests: dict[str, Tally] = {}
        self.latencies = Latencies()
        self.quarantined = self.repairs = 0
        self._freed: dict[int, int] = {}

    def take(self, notice: Notice) -> None:
        """Take in what the scheduler tells."""
        if not notice.guest:
            return
        if notice.what is Happening.TURN_BEGAN:
            self._begins(self._of(notice.guest), notice)
        elif notice.what is Happening.TURN_ENDED:
            self._ends(self._of(notice.guest), notice)
        elif notice.what is Happening.RESEATED:
            self._moves(self._of(notice.guest), notice)
        elif notice.what is Happening.PUT_BACK:
            self.repairs += 1
        elif notice.what in _FAULTS:
            self._of(notice.guest).faults += 1
            self.quarantined += notice.what is Happening.QUARANTINED

    def blame(self, guest: str) -> None:
        """Count a trouble of which the scheduler does not tell."""
        self._of(guest).faults += 1

    def keep_only(self, guests: Collection[str]) -> None:
        """Forget all others."""
        for name in self.guests.keys() - guests:
            del self.guests[name]

    def _of(self, guest: str) -> Tally:
        tally = self.guests.get(guest)
        if tally is None:
            tally = self.guests[guest] = Tally()
        return tally

    def _begins(self, tally: Tally, notice: Notice) -> None:
        tally.turns += 1
        tally.began, tally.cores = notice.at, len(notice.cores)
        if notice.latest:
            length, bound = notice.at - notice.since, notice.latest - notice.since
            tally.waits += 1
            tally.waited += length
            tally.longest = max(tally.longest, length)
            tally.nearest = max(tally.nearest, length / bound if bound > 0 else 0.0)
            freed = max((self._freed.get(core, -1) for core in notice.cores), default=-1)
            if freed >= notice.since:
                self.latencies.add(notice.at - freed)
        for core in notice.cores:
            self._freed.pop(core, None)

    def _ends(self, tally: Tally, notice: Notice) -> None:
        tally.ran += len(notice.cores) * (notice.at - notice.since)
        tally.began = None
        for core in notice.cores:
            self._freed[core] = notice.at

    def _moves(self, tally: Tally, notice: Notice) -> None:
        if tally.began is not None:
            tally.ran, tally.began = tally.ran_until(notice.at), notice.at
            tally.cores = len(notice.cores)

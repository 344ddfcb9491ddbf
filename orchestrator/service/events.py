"""What has happened, the last events of it: numbered, so that nobody who reads on misses one without being told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import msgspec

from orchestrator.core.orders import Happening, Notice

KEPT = 10_000
"""How many events are kept, in the order in which they happened."""

_AT_ONCE = 100
"""How many events a reader takes before others get their turn of the loop."""


class Waited(msgspec.Struct, frozen=True):
    """How long a guest had waited when its turn began, and how long it could have had to, in seconds."""

    seconds: float
    bound: float


def waited(notice: Notice) -> Waited | None:
    """Say how long a shared guest had waited for a turn that began."""
    if notice.what is not Happening.TURN_BEGAN or not notice.latest:
        return None
    seconds, bound = (round((end - notice.since) / 10**9, 3) for end in (notice.at, notice.latest))
    return Waited(seconds, bound)


class Event(msgspec.Struct, frozen=True):
    """One event: `seq` grows by 1, and over restarts of the daemon by more; `at` is wall-clock time (ISO 8601, UTC).

    `owner` is whose guest it befell, `by` who asked for it, where somebody did. `waited` comes with the turns of shared
    guests.
    """

    seq: int
    at: str
    what: str
    guest: str = ""
    owner: str = ""
    cores: tuple[int, ...] = ()
    why: str = ""
    waited: Waited | None = None
    by: str = ""


class Missed(msgspec.Struct, frozen=True, omit_defaults=True):
    """So many events, other users' among them, were no longer kept when the reader came to them.

    With `restarted` he reads on from a number of a daemon before this one, whose last events only its log still has.
    """

    missed: int
    restarted: bool = False


def _utc() -> datetime:
    return datetime.now(UTC)


class Events:
    """The last events. Adding one costs the same whatever their number, and waits for no reader."""

    def __init__(
        self,
        kept: int = KEPT,
        clock: Callable[[], datetime] = _utc,
        first: int = 1,
        keep: Callable[[Event], None] = lambda _: None,
    ) -> None:
        """Count from `first` on; `keep` is given what somebody has asked for, to be kept for longer."""
        self._ring: list[Event | None] = [None] * kept
        self._clock = clock
        self._keep = keep
        self._begin = self._last = first - 1
        self._stir = asyncio.Event()
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the last event; before the first, one less than that will have."""
        return self._last

    def add(
        self,
        what: str,
        guest: str = "",
        owner: str = "",
        cores: tuple[int, ...] = (),
        why: str = "",
        waited: Waited | None = None,
        by: str = "",
    ) -> None:
        """Note that something happened now."""
        self._last += 1
        at = self._clock().isoformat(timespec="microseconds")
        event = Event(self._last, at, what, guest, owner, cores, why, waited, by)
        self._ring[self._last % len(self._ring)] = event
        if by:
            self._keep(event)
        self._stir.set()

    def close(self) -> None:
        """Let every reader come to its end."""
        self._closed = True
        self._stir.set()

    async def read(self, since: int, *, follow: bool) -> AsyncIterator[list[Event | Missed]]:
        """Yield the events after number `since`, some at a time; with `follow` those that come, until `close`.

        A reader who was too slow gets a `Missed` in the place of what is no longer kept, and so does one who comes with
        a number of a daemon before. A number of which nobody has heard yet counts as none.
        """
        if 1 < since < self._begin:
            yield [Missed(0, restarted=True)]
        seen = since if self._begin <= since <= self._last else self._begin
        while True:
            while seen < self._last:
                piece = self._after(seen)
                last = piece[-1]
                assert isinstance(last, Event)  # a gap is followed by what is kept
                seen = last.seq
                yield piece
            if not follow or self._closed:
                return
            await self._stirred()

    def _after(self, seen: int) -> list[Event | Missed]:
        first = max(seen + 1, self._last - len(self._ring) + 1)
        gap: list[Event | Missed] = [Missed(first - seen - 1)] if first > seen + 1 else []
        numbers = range(first, min(first + _AT_ONCE, self._last + 1))
        events = (self._ring[number % len(self._ring)] for number in numbers)
        return gap + [event for event in events if event is not None]

    async def _stirred(self) -> None:
        """Return when there may be something new."""
        self._stir.clear()
        await self._stir.wait()

"""What the chores process keeps: two logs, and the serial logs of guests. When it does what is the loop's business."""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.chores.batch import BatchLog
from orchestrator.chores.counters import Counts
from orchestrator.chores.messages import AnyMessage, Dropped, Forget, Log, Lost, Metrics, Watch
from orchestrator.chores.serial import Follower

_SOON = 8
"""A serial log that grows fast is looked at so many times as often."""

_GIVE_UP = 5_000_000_000
"""How long the end waits for a disk that takes nothing, in nanoseconds."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are kept and how: bytes of each log, records and nanoseconds of a batch, nanoseconds of a poll."""

    directory: Path
    log_limit: int
    batch_records: int
    batch_patience: int
    poll: int


@dataclass(order=True, slots=True)
class _Look:
    """When a guest's serial log is looked at next; `follower` is None once it was forgotten."""

    due: int
    number: int
    guest: str
    follower: Follower | None


class Desk:
    """Everything that is being kept. Times are monotonic, in nanoseconds."""

    def __init__(self, settings: Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._settings = settings
        self._clock = clock
        self._serial = settings.directory / "serial"
        self._serial.mkdir(mode=0o700, parents=True, exist_ok=True)
        rules = (settings.log_limit, settings.batch_records, settings.batch_patience)
        self._events = BatchLog(settings.directory / "events.jsonl", *rules)
        self._metrics = BatchLog(settings.directory / "metrics.jsonl", *rules)
        self._watched: dict[str, _Look] = {}
        self._agenda: list[_Look] = []
        self._number = 0
        self._troubles: dict[str, int] = {}  # guest to errno
        self._copied = 0
        self._lost = Counter[str]()  # bytes of serial output, by guest
        self._untold: set[str] = set()

    def take(self, message: AnyMessage) -> None:
        """Do what a message says."""
        match message:
            case Log(record):
                self._events.add(record, self._clock())
            case Metrics(record):
                self._metrics.add(record, self._clock())
            case Dropped(log, count):
                said = {"at": time.time_ns(), "kind": "dropped", "count": count, "why": "the queue was full"}
                (self._metrics if log == "metrics" else self._events).add(said, self._clock(), counts=False)
            case Watch(guest, path, limit):
                self._watch(guest, path, limit)
            case Forget(guest):
                self._forget(guest)

    def refuse(self, why: str) -> None:
        """Note a message that cannot be understood; a record of the scheduler's is lost with it."""
        self._events.lost += 1
        self.say({"kind": "refused", "why": f"a message that makes no sense: {why[:300]}"})

    def say(self, record: dict[str, object]) -> None:
        """Append a record of this process's own to the event log."""
        self._events.add({"at": time.time_ns(), **record}, self._clock(), counts=False)

    def full(self) -> bool:
        """Tell whether there is a batch to be written before more is taken."""
        return self._events.full or self._metrics.full

    def due(self) -> int | None:
        """Return when there is something to do, None if nothing is planned."""
        moments = [self._events.due, self._metrics.due, self._agenda[0].due if self._agenda else None]
        return min((moment for moment in moments if moment is not None), default=None)

    def work(self) -> None:
        """Do what is due, of the serial logs one."""
        now = self._clock()
        for log in (self._events, self._metrics):
            if log.due is not None and log.due <= now:
                log.flush(now, time.time_ns())
        if self._agenda and self._agenda[0].due <= now:
            self._look(heapq.heappop(self._agenda))

    def finish(self) -> bool:
        """Make everything durable, as far as the disk lets us in time, and tell whether nothing was lost."""
        serials = [self._forget(guest) for guest in list(self._watched)]
        until = self._clock() + _GIVE_UP
        for log in (self._events, self._metrics):
            log.flush(self._clock(), time.time_ns())
            while log.errno and self._clock() < until:
                time.sleep(0.05)
                log.flush(self._clock(), time.time_ns())
        return all(serials) and all(log.due is None and log.lost == 0 for log in (self._events, self._metrics))

    def counts(self) -> Counts:
        """Return how much is durable, and how much was lost."""
        return Counts(
            durable=self._events.durable + self._metrics.durable,
            lost=self._events.lost + self._metrics.lost,
            serial_bytes=self._copied,
            serial_lost=self._lost.total(),
            errno=self._events.errno or self._metrics.errno or next(iter(self._troubles.values()), 0),
        )

    def tell(self, send: Callable[[Lost], bool]) -> None:
        """Tell how much of each guest's serial output was lost, where that is news; `send` is false if not now."""
        for guest in sorted(self._untold):
            if not send(Lost(guest, self._lost[guest])):
                return
            self._untold.remove(guest)

    def _watch(self, guest: str, path: str, limit: int) -> None:
        self._forget(guest)
        if not _NAME.fullmatch(guest):
            self.say({"kind": "refused", "why": f"{guest[:100]!r} cannot be the name of a serial log"})
            return
        self._number += 1
        follower = Follower(Path(path), self._serial / f"{guest}.log", limit)
        look = self._watched[guest] = _Look(self._clock(), self._number, guest, follower)
        heapq.heappush(self._agenda, look)

    def _look(self, look: _Look) -> None:
        if look.follower is None:
            return
        busy = self._poll(look.guest, look.follower)
        look.due = self._clock() + (self._settings.poll // _SOON if busy else self._settings.poll)
        heapq.heappush(self._agenda, look)

    def _poll(self, guest: str, follower: Follower) -> bool:
        copied, lost = follower.copied, follower.lost
        self._troubles.pop(guest, None)
        try:
            return follower.poll()
        except OSError as error:
            self._troubles[guest] = error.errno or 0
            return False
        finally:
            self._copied += follower.copied - copied
            if follower.lost > lost:
                self._lost[guest] += follower.lost - lost
                self._untold.add(guest)

    def _forget(self, guest: str) -> bool:
        """Keep what is there still of a guest's log, and tell whether the disk took it."""
        look = self._watched.pop(guest, None)
        if look is None or look.follower is None:
            return True
        self._poll(guest, look.follower)
        look.follower.close()
        look.follower = None
        return self._troubles.pop(guest, 0) == 0

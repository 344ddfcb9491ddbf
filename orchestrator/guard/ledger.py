"""What the guard writes down: on the disk before it acts if the disk answers in time, else in the reserve in memory.

A disk that hangs answers to nobody, for as long as it likes; an emergency cannot wait for it. So a thread of its own
writes, and whoever acts waits for it no longer than `DISK_LIMIT`. What is not durable by then is put into the reserve,
the act follows, and when the disk takes records again they are written in order, and after them one that says so.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.core.emergency import LATE
from orchestrator.core.journal import Head, Record, encode, follow
from orchestrator.errors import HostError
from orchestrator.ports import Journal

DISK_LIMIT = 0.05
"""Seconds that an act waits for the disk: half of what it may take altogether."""

_MOST_RECENT = 200


class Reserve(Protocol):
    """A file in memory for what the disk does not take. Calls do not block."""

    def add(self, line: bytes, *, urgent: bool) -> None:
        """Keep a record's line. HostError if there is no room; what is not urgent has half of it."""

    def clear(self) -> None:
        """Forget all of them."""


@dataclass(frozen=True, slots=True)
class Written:
    """A record, and why it is not on the disk yet; empty if it is."""

    record: Record
    late: str


@dataclass(slots=True)
class _Lateness:
    """Records, by number, that were not durable as what they describe was done.

    Of `not_done` that was not done, since nothing took the record in time; `unplaced` were in the reserve, but follow
    from nothing that the journal has.
    """

    first: int
    last: int
    since: float
    why: str
    not_done: list[int] = field(default_factory=list)
    unplaced: list[dict[str, Any]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """Return what a record says of it."""
        milliseconds = int((time.monotonic() - self.since) * 1000)
        told: dict[str, Any] = {"first": self.first, "last": self.last, "why": self.why, "ms": milliseconds}
        told |= {"not_done": self.not_done} if self.not_done else {}
        return told | ({"unplaced": self.unplaced} if self.unplaced else {})


@dataclass(frozen=True, slots=True)
class Before:
    """What there was before this process: the last records on the disk, and those that the reserve holds."""

    written: Sequence[Record] = ()
    reserved: Sequence[Record] = ()


NOTHING_BEFORE = Before()


class Ledger:
    """Writes into `journal`, which is nobody else's from now on; `before` is what another one has left.

    `wall` is nanoseconds since 1970. `upkeep` is done between records, and says what is wrong, if anything is; `told`
    is given each new record. `recent` are the last ones: no disk is asked for these.
    """

    def __init__(
        self,
        journal: Journal,
        reserve: Reserve,
        wall: Callable[[], int],
        *,
        before: Before = NOTHING_BEFORE,
        upkeep: Callable[[], str] = str,
        told: Callable[[Written], object] = lambda _: None,
        limit: float = DISK_LIMIT,
    ) -> None:
        self.recent = deque(before.written, _MOST_RECENT)
        self._journal, self._reserve, self._wall, self._limit = journal, reserve, wall, limit
        self._upkeep, self._told = upkeep, told
        self._changed = threading.Condition()
        self._head = journal.head
        self._pending: deque[Record] = deque()
        self._late: _Lateness | None = None
        self._busy_since: float | None = None
        self._resting = False  # after a failure, until somebody has it try again
        self._over = False
        self._wants_upkeep = True
        self._trouble = self._neglected = ""
        for record in before.reserved:
            self._take_up(record)
        if not self._pending:
            self._tell_of_late()

    @property
    def head(self) -> Head:
        """How far it goes, with what is not durable yet."""
        return self._head

    @property
    def trouble(self) -> str:
        """What is wrong with the disk; empty if nothing is, as far as is known."""
        return self._trouble or self._hangs() or self._neglected

    @property
    def owed(self) -> int:
        """How many records are not on the disk yet."""
        return len(self._pending)

    def write(self, kind: str, body: Mapping[str, Any], *, urgent: bool = True) -> Written:
        """Return when a record is durable, or in the reserve. HostError if neither can be: then do nothing."""
        with self._changed:
            record = follow(self._head, self._wall(), kind, body)
            self._head = record.head
            self._pending.append(record)
            self._resting = False
            self._changed.notify_all()
            if not self._hangs():
                self._changed.wait_for(lambda: self._is_durable(record) or self._resting, self._limit)
            late = "" if self._is_durable(record) else self._put_by(record, urgent=urgent)
            return self._made(Written(record, late))

    def run(self) -> None:
        """Write what there is to be written, until `stop`."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                record = self._pending[0] if self._pending and not self._resting else None
                if record is None and self._over:
                    return
                self._wants_upkeep = self._wants_upkeep and record is not None
                self._busy_since = time.monotonic()
            trouble = self._upkeep() if record is None else self._wrote(record)
            with self._changed:
                self._busy_since = None
                if record is None:
                    self._neglected = trouble
                else:
                    self._trouble, self._resting = trouble, bool(trouble)
                    if not trouble:
                        self._follow_up(record)
                self._changed.notify_all()

    def try_again(self) -> None:
        """Have the disk tried again, if it did not take what there is."""
        with self._changed:
            self._resting, self._wants_upkeep = False, True
            self._changed.notify_all()

    def stop(self) -> None:
        """Have `run` return, when what there is has been written, or has failed."""
        with self._changed:
            self._over, self._resting = True, False
            self._changed.notify_all()

    def _has_work(self) -> bool:
        return self._over or self._wants_upkeep or bool(self._pending and not self._resting)

    def _is_durable(self, record: Record) -> bool:
        return not self._pending or record.seq < self._pending[0].seq

    def _hangs(self) -> str:
        """Say so if the disk has been at something for longer than an act would wait."""
        since = self._busy_since
        waited = 0.0 if since is None else time.monotonic() - since
        return f"the disk has not answered for {waited:.1f} s" if waited > self._limit else ""

    def _made(self, written: Written) -> Written:
        self.recent.append(written.record)
        self._told(written)
        return written

    def _put_by(self, record: Record, *, urgent: bool) -> str:
        """Put what is not durable into the reserve, and return why it is not. HostError if there is no room, either."""
        why = self._trouble or f"the disk has not answered for {self._limit * 1000:.0f} ms"
        try:
            self._reserve.add(encode(record), urgent=urgent)
        except HostError as error:
            self._withdraw(record, why)
            raise HostError(f"{record.kind!r} cannot be recorded: {why}; {error}") from None
        self._is_late(record, why)
        return why

    def _wrote(self, record: Record) -> str:
        try:
            self._journal.append(record.kind, record.body, record.at)
        except HostError as error:
            return str(error)
        return ""

    def _follow_up(self, record: Record) -> None:
        """See to what follows from a record that is durable now."""
        self._pending.popleft()
        if self._pending:
            return
        self._wants_upkeep = True
        if record.kind == LATE:
            self._reserve.clear()
        else:
            self._tell_of_late()

    def _tell_of_late(self) -> None:
        """Owe the disk a record of those that were not on it in time, if there were any."""
        if self._late is None:
            return
        told = follow(self._head, self._wall(), LATE, self._late.body())
        self._head, self._late = told.head, None
        self._pending.append(told)
        self._made(Written(told, ""))

    def _is_late(self, record: Record, why: str) -> _Lateness:
        if self._late is None:
            self._late = _Lateness(record.seq, record.seq, time.monotonic(), why)
        self._late.last = record.seq
        return self._late

    def _withdraw(self, record: Record, why: str) -> None:
        """Take a record back that nothing has taken; of one that is being written it is said later that it is void."""
        being_written = self._busy_since is not None and self._pending[0] is record
        if self._pending[-1] is record and not being_written:
            self._pending.pop()
            self._head = Head(record.seq - 1, record.previous)
        else:
            self._is_late(record, why).not_done.append(record.seq)

    def _take_up(self, record: Record) -> None:
        """Owe the disk a record that the reserve has held since before this process, unless the disk has it."""
        late = self._is_late(record, "the guard ended before the disk had taken it")
        if (record.seq, record.previous) == (self._head.seq + 1, self._head.hash):
            self._head = record.head
            self._pending.append(record)
            self.recent.append(record)
        elif record.seq > self._head.seq:
            late.unplaced.append({"seq": record.seq, "hash": record.hash, "kind": record.kind, "body": record.body})

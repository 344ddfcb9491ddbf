"""What happened on a host, put together from what a daemon has written down: its event log, samples and journal. Pure.

Records come as JSON objects, in the order in which they were written; a record that is not as it should be is counted
and left out, and what a log says to have lost is counted too. Times are wall-clock nanoseconds since 1970; lengths were
measured by the scheduler's own monotonic clock, so setting the host's clock shifts a turn and makes none longer.

A guest goes on running when its scheduler ends. Its turn goes on in the chronicle until the next scheduler has taken it
over, and ends with the old scheduler if none has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from orchestrator.core.journal import Record
from orchestrator.core.orders import Happening

ASKED = ("asked", "acted for")
"""What the event log calls it that somebody has asked for something, for himself or for another."""

BEGAN, ENDED = "scheduler began", "scheduler ended"
"""What the event log calls a daemon's beginning and its orderly end."""

INCIDENTS = frozenset(
    {
        *(Happening.QUARANTINED, Happening.GONE, Happening.UNDONE, Happening.WITHDRAWN, Happening.DRIFT),
        *(Happening.WARNED, Happening.WARNED_OF_END, Happening.THROTTLED, Happening.RELEASED),
        *(
            Happening.PUT_BACK,
            Happening.ASTRAY,
            Happening.OUTPUT_LOST,
            Happening.OUT_OF_QUOTA,
            Happening.ALARM,
            Happening.MOVES,
            Happening.POLICY,
            BEGAN,
            ENDED,
            *ASKED,
            "not remembered",
            "not recorded",
        ),
    }
)
"""What is told of beside turns and waits."""

_ASKED_FOR = frozenset({*ASKED, BEGAN, ENDED, Happening.POLICY, Happening.RELEASED, Happening.MOVES})


class Turn(NamedTuple):
    """A guest had these cores from `begin` to `end`; a `shared` one for a turn, an exclusive one for good."""

    guest: str
    owner: str
    cores: tuple[int, ...]
    begin: int
    end: int
    shared: bool


class Waited(NamedTuple):
    """A guest's wait that was over at `at`, after so long, where `bound` was the longest that it could have been."""

    guest: str
    at: int
    length: int
    bound: int


class Incident(NamedTuple):
    """Something that is worth telling: who did it or whom it befell, and why; `source` is ``log`` or ``journal``."""

    at: int
    what: str
    guest: str
    owner: str
    why: str
    source: str

    @property
    def is_trouble(self) -> bool:
        """Whether nobody wanted it."""
        return self.source == "log" and self.what not in _ASKED_FOR


@dataclass(frozen=True, slots=True)
class Sample:
    """What somebody was due at one moment, in cores, and what of his quotas was used.

    `quotas` are (party, rule, used, limit, unit), as `core.overview.QuotaUse`.
    """

    at: int
    wanted: Mapping[str, float]
    quotas: tuple[tuple[str, str, int, int, str], ...] = ()


@dataclass(slots=True)
class _Open:
    turn: Turn
    orphaned: int | None = None


@dataclass(slots=True)
class Chronicle:
    """Mutable while it is put together; then `turns`, `waits`, `incidents` and `samples` are in order of their ends.

    What was over before `since` is left out; `first` is when the first record was written that is not. `unread` counts
    records that made no sense, `lost` those of which a log says that they could not be kept. `owners` and
    `architectures` are those of guests of which they are known.
    """

    since: int = 0
    turns: list[Turn] = field(default_factory=list)
    waits: list[Waited] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    architectures: dict[str, str] = field(default_factory=dict)
    unread: int = 0
    lost: int = 0
    first: int = 1 << 63
    _open: dict[str, _Open] = field(default_factory=dict)

    def event(self, record: Mapping[str, Any] | None) -> None:
        """Take in a record of the event log; None stands for one that cannot be read."""
        try:
            self._event({} if record is None else record)
        except (KeyError, TypeError, ValueError):
            self.unread += 1

    def sample(self, record: Mapping[str, Any] | None) -> None:
        """Take in a record of the log of metrics."""
        if record is None:
            self.unread += 1
            return
        if self._says_lost(record):
            return
        try:
            guests: Mapping[str, Any] = record["guests"]
            wanted = {str(name): float(each["wanted"]) for name, each in guests.items()}
            quotas = tuple((str(q[0]), str(q[1]), int(q[2]), int(q[3]), str(q[4])) for q in record.get("quotas", ()))
            at = int(record["at"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            self.unread += 1
            return
        for name, each in guests.items():
            self.owners[name] = str(each.get("owner", ""))
            self.architectures[name] = str(each.get("architecture", ""))
        if self.samples and self.samples[-1].at == at:  # one that was too long for a record
            before = self.samples.pop()
            wanted, quotas = {**before.wanted, **wanted}, before.quotas or quotas
        self.samples.append(Sample(at, wanted, quotas))
        self._seen(at)

    def act(self, record: Record | None) -> None:
        """Take in a record of the journal."""
        if record is None:
            self.unread += 1
            return
        body = record.body
        guest, owner = str(body.get("guest", "")), str(body.get("by", body.get("owner", "")))
        why = str(body.get("why", ""))
        if not why and isinstance(body.get("cores"), list) and body["cores"]:
            why = f"cores {','.join(map(str, body['cores']))}"
        self.incidents.append(Incident(record.at, f"{record.kind} begun", guest, owner, why, "journal"))

    def finish(self, now: int) -> None:
        """End what goes on at `now`, and put incidents in order."""
        for each in self._open.values():
            self._keep(each.turn._replace(end=now if each.orphaned is None else each.orphaned))
        self._open.clear()
        self.turns = [turn._replace(owner=turn.owner or self.owners.get(turn.guest, "")) for turn in self.turns]
        self.incidents.sort()
        self.samples.sort(key=_at)

    def _event(self, record: Mapping[str, Any]) -> None:
        if self._says_lost(record):
            return
        at, what, guest = int(record["at"]), str(record["what"]), str(record.get("guest", ""))
        owner = str(record.get("owner", ""))
        if guest and owner:
            self.owners[guest] = owner
        if what == Happening.TURN_BEGAN:
            self._turn_began(record, at, guest)
        elif what == Happening.TURN_ENDED:
            self._turn_ended(record, at, guest)
        elif what == Happening.RESEATED:
            self._moved(record, at, guest)
        elif what in (BEGAN, ENDED):
            for each in self._open.values():
                each.orphaned = at if each.orphaned is None else each.orphaned
        if what in INCIDENTS and at >= self.since:
            who, why = str(record.get("by", owner)), str(record.get("why", ""))
            self.incidents.append(Incident(at, what, guest, who, why, "log"))
        self._seen(at)

    def _turn_began(self, record: Mapping[str, Any], at: int, guest: str) -> None:
        cores = _cores(record)
        bound = int(record.get("bound", 0))
        before = self._open.pop(guest, None)
        if before is not None:  # it was taken over, or its end was lost
            self._keep(before.turn._replace(end=at))
        shared = bool(record.get("shared", bound))
        self._open[guest] = _Open(Turn(guest, self.owners.get(guest, ""), cores, at, at, shared))
        if bound and at >= self.since:
            self.waits.append(Waited(guest, at, int(record["waited"]), bound))

    def _turn_ended(self, record: Mapping[str, Any], at: int, guest: str) -> None:
        before = self._open.pop(guest, None)
        cores, begin = _cores(record), at - int(record.get("lasted", 0))
        if before is not None:
            begin = max(before.turn.begin, begin) if "lasted" in record else before.turn.begin
            cores = cores or before.turn.cores
        shared = True if before is None else before.turn.shared
        self._keep(Turn(guest, self.owners.get(guest, ""), cores, begin, at, shared))

    def _moved(self, record: Mapping[str, Any], at: int, guest: str) -> None:
        before = self._open.get(guest)
        if before is not None:
            self._keep(before.turn._replace(end=at))
            self._open[guest] = replace(before, turn=before.turn._replace(cores=_cores(record), begin=at))

    def _seen(self, at: int) -> None:
        if self.since <= at < self.first:
            self.first = at

    def _keep(self, turn: Turn) -> None:
        if turn.end > self.since:
            self.turns.append(turn)
            self._seen(max(self.since, turn.begin))

    def _says_lost(self, record: Mapping[str, Any]) -> bool:
        if record.get("kind") not in ("lost", "dropped"):
            return "what" not in record and "guests" not in record and "kind" in record
        count = record.get("count")
        self.lost += count if isinstance(count, int) else 1
        return True


def _at(sample: Sample) -> int:
    return sample.at


def _cores(record: Mapping[str, Any]) -> tuple[int, ...]:
    cores: Iterable[Any] = record.get("cores", ())
    return tuple(int(core) for core in cores)

"""How everything stands at one moment, as `top`, metrics and samples show it: cores, guests, users, hand-overs.

Who may not see a guest is not told of it: of cores he sees that somebody has them, of figures that are for everybody
all. Growth: n log n in the guests, beside reading how much memory each has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from orchestrator.core.health import Kept
from orchestrator.core.overview import Got, Shareout, Survey, jain, quota_use, user_use, wanted
from orchestrator.core.sharing import Wait
from orchestrator.core.tally import LATENCIES, Tally
from orchestrator.engine import Engine, RunningGuest
from orchestrator.service.callers import Peer
from orchestrator.service.desk import Desk
from orchestrator.service.views import NANOSECONDS

MARK_EVERY = 5.0
"""Seconds between two marks by which it is told who has got how much of late."""

SAMPLE_EVERY = 10.0
"""Seconds between two samples in the log of metrics."""

_AT_ONCE = 250
"""Guests in one sample: with more it would be too long for a record."""


class CoreLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A core; `holder` and `held` as `views.CoreView`, `since` for how many seconds the holder has had it."""

    id: int
    role: str
    node: int
    holder: str | None
    held: bool
    since: float | None


class GuestLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's figures. `wanted` cores it is due now, of late it `got` so many of `due` (None: too early to say).

    `waiting` is for how many seconds it has waited, `latest` in how many it runs at the latest. `waits` lasted
    `waited_seconds` together; the worst took `nearest` of its bound (1: all). `memory` is in bytes.
    """

    name: str
    owner: str
    architecture: str
    mode: str
    state: str
    cores: tuple[int, ...]
    weight: int
    wanted: float
    due: float | None
    got: float | None
    ran_seconds: float
    cpu_seconds: float
    memory: int
    turns: int
    waits: int
    waited_seconds: float
    longest_seconds: float
    nearest: float
    waiting: float | None
    latest: float | None
    faults: int


class UserLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a user has; `core_seconds_today` is core time that counts for his quotas."""

    user: str
    guests: int
    running: int
    exclusive_cores: int
    memory: int
    core_seconds_today: float


class QuotaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a party has used of a rule; in `unit`: ``count``, ``bytes`` or ``core-seconds``."""

    party: str
    rule: str
    used: float
    limit: float
    unit: str


class HandoverLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Hand-overs since the daemon began, by their length: `counts` by the upper ends `seconds`, and one beyond."""

    seconds: tuple[float, ...]
    counts: tuple[int, ...]
    total_seconds: float


class DaemonLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon itself: for how long it is there, what it has used of its core, and its memory in bytes.

    `journal` is how many records the journal has, `journal_head` the last one's hash; `records_lost` are those of the
    event log and of samples. `repairs` counts how often threads were put back where they belong.
    """

    seconds: float
    cpu_seconds: float
    memory: int
    events: int
    quarantined: int
    repairs: int
    journal: int
    journal_head: str
    records_lost: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `fairness` is Jain's index of what shared guests got of late of what they were due, of all users."""

    at: float
    cores: tuple[CoreLoad, ...]
    guests: tuple[GuestLoad, ...]
    users: tuple[UserLoad, ...]
    quotas: tuple[QuotaLoad, ...]
    handovers: HandoverLoad
    fairness: float | None
    daemon: DaemonLoad


class OverviewDesk:
    """Answers what the desk's counts and the engine's state come to.

    `memory` says how much a process has, `kept` how the records are doing.
    """

    def __init__(
        self, desk: Desk, engine: Engine, memory: Callable[[int], int], kept: Callable[[], Kept] = Kept
    ) -> None:
        self._desk = desk
        self._engine = engine
        self._memory = memory
        self._kept = kept
        self._shareout = Shareout()
        self._began = time.monotonic()

    def mark(self) -> None:
        """Note who is due what from now on; to be called every `MARK_EVERY` seconds."""
        survey = self._engine.survey()
        self._desk.tallies.keep_only({*self._engine.guests, *survey.snapshot.guests})
        self._shareout.mark(survey.snapshot.now, self._ran(survey), wanted(survey.snapshot))

    def overview(self, peer: Peer) -> Overview:
        """Show what the caller may see of it."""
        survey = self._engine.survey()
        got = self._shareout.got(survey.snapshot.now, self._ran(survey))
        return Overview(
            at=time.time(),
            cores=tuple(self._cores(peer, survey)),
            guests=tuple(self._guests(peer, survey, got)),
            users=tuple(self._users(peer, survey)),
            quotas=tuple(self._quotas(peer, survey)),
            handovers=self._handovers(),
            fairness=_fairness(survey, got),
            daemon=self._daemon(),
        )

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield this moment's records for the log of metrics, as `core.chronicle` reads them."""
        survey = self._engine.survey()
        due, names = wanted(survey.snapshot), sorted(survey.snapshot.guests)
        quotas = [tuple(each) for each in quota_use(survey.snapshot)]
        for first in range(0, max(1, len(names)), _AT_ONCE):
            guests = {}
            for name in names[first : first + _AT_ONCE]:
                known = survey.snapshot.guests[name]
                guests[name] = {
                    "owner": known.owner,
                    "architecture": known.spec.architecture,
                    "wanted": round(due.get(name, 0.0), 4),
                }
            yield {"guests": guests, "quotas": quotas if first == 0 else []}

    def _ran(self, survey: Survey) -> dict[str, int]:
        tallies, now = self._desk.tallies.guests, survey.snapshot.now
        return {name: tallies[name].ran_until(now) if name in tallies else 0 for name in survey.snapshot.guests}

    def _cores(self, peer: Peer, survey: Survey) -> Iterator[CoreLoad]:
        holds = {core: hold for hold in survey.holds for core in hold.cores}
        for cpu in self._engine.topology.cpus:
            hold = holds.get(cpu.id)
            shown = hold is not None and peer.sees(self._desk.owner_of(hold.holder) or "")
            yield CoreLoad(
                id=cpu.id,
                role=cpu.role,
                node=cpu.node,
                holder=hold.holder if hold is not None and shown else None,
                held=hold is not None,
                since=None if hold is None else _seconds(survey.snapshot.now - hold.since),
            )

    def _guests(self, peer: Peer, survey: Survey, got: dict[str, Got]) -> Iterator[GuestLoad]:
        due = wanted(survey.snapshot)
        waits = {wait.guest: wait for wait in survey.waits}
        holds = {hold.holder: hold.cores for hold in survey.holds}
        for name in sorted(self._engine.guests):
            guest = self._engine.guests[name]
            if peer.sees(guest.domain.owner):
                tally = self._desk.tallies.guests.get(name, Tally())
                yield self._guest(
                    guest, tally, survey, due.get(name, 0.0), got.get(name), waits.get(name), holds.get(name, ())
                )

    def _guest(
        self,
        guest: RunningGuest,
        tally: Tally,
        survey: Survey,
        due: float,
        got: Got | None,
        wait: Wait | None,
        cores: tuple[int, ...],
    ) -> GuestLoad:
        now, spec = survey.snapshot.now, guest.domain.spec
        latest = None if wait is None else wait.latest
        return GuestLoad(
            name=guest.name,
            owner=guest.domain.owner,
            architecture=spec.architecture,
            mode=spec.mode,
            state=self._engine.state(guest.name),
            cores=cores,
            weight=spec.weight,
            wanted=round(due, 4),
            due=None if got is None else round(got.due, 4),
            got=None if got is None else round(got.got, 4),
            ran_seconds=_seconds(tally.ran_until(now)),
            cpu_seconds=round(guest.cpu_seconds, 3),
            memory=0 if guest.pid is None else self._memory(guest.pid),
            turns=tally.turns,
            waits=tally.waits,
            waited_seconds=_seconds(tally.waited),
            longest_seconds=_seconds(tally.longest),
            nearest=round(tally.nearest, 4),
            waiting=None if wait is None else _seconds(now - wait.since),
            latest=None if latest is None else _seconds(latest - now),
            faults=tally.faults + guest.crashed,
        )

    def _users(self, peer: Peer, survey: Survey) -> Iterator[UserLoad]:
        for each in user_use(survey.snapshot):
            if peer.sees(each.user):
                yield UserLoad(
                    user=each.user,
                    guests=each.guests,
                    running=each.running,
                    exclusive_cores=each.exclusive_cores,
                    memory=each.memory,
                    core_seconds_today=_seconds(each.today),
                )

    def _quotas(self, peer: Peer, survey: Survey) -> Iterator[QuotaLoad]:
        for each in quota_use(survey.snapshot):
            if peer.may_do_everything or each.party == peer.user:
                of, unit = (NANOSECONDS, "core-seconds") if each.unit == "core-nanoseconds" else (1, each.unit)
                yield QuotaLoad(party=each.party, rule=each.rule, used=each.used / of, limit=each.limit / of, unit=unit)

    def _handovers(self) -> HandoverLoad:
        latencies = self._desk.tallies.latencies
        ends = tuple(end / NANOSECONDS for end in LATENCIES)
        return HandoverLoad(seconds=ends, counts=tuple(latencies.counts), total_seconds=latencies.total / NANOSECONDS)

    def _daemon(self) -> DaemonLoad:
        kept = self._kept()
        return DaemonLoad(
            seconds=round(time.monotonic() - self._began, 3),
            cpu_seconds=round(time.process_time(), 3),
            memory=self._memory(os.getpid()),
            events=self._desk.events.last,
            quarantined=self._desk.tallies.quarantined,
            repairs=self._desk.tallies.repairs,
            journal=kept.head.seq,
            journal_head=kept.head.hash,
            records_lost=kept.lost,
        )


def _fairness(survey: Survey, got: dict[str, Got]) -> float | None:
    guests = survey.snapshot.guests
    parts = {name: each.got / each.due for name, each in got.items() if each.due > 0 and not guests[name].exclusive}
    index = jain(parts)
    return None if index is None else round(index, 4)


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / NANOSECONDS, 3)

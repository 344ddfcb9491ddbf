"""The scheduler's side of the emergency console: it beats, and heeds what the guard has written down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from orchestrator.core.emergency import REFUSED, Act, targets
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.core.journal import Record
    from orchestrator.engine import Engine
    from orchestrator.host.guard_book import GuardBook
    from orchestrator.host.heartbeat import Heart
    from orchestrator.launch import Launcher
    from orchestrator.ports import Clock
    from orchestrator.recorder import Records
    from orchestrator.service.door import Ban, Door

LOOK_EVERY = 0.25
"""Seconds between two looks at the guard's journal: less than the first wait before a guest is restarted."""

_TAKES_OVER = 0.05
"""Seconds until a frozen guest goes on, so that it takes in that it is to be paused."""


def guard_book() -> GuardBook:
    """Return the guard's journal, as it grows."""
    from orchestrator.host.guard_book import GuardBook
    from orchestrator.host.places import state_directory
    from orchestrator.wiring.guard import reserve_file
    from orchestrator.wiring.journals import GUARD

    return GuardBook(state_directory(os.environ) / f"{GUARD}.jsonl", reserve_file())


def heart() -> Heart:
    """Begin to beat."""
    from orchestrator.host.heartbeat import Heart
    from orchestrator.wiring.guard import heartbeat_file

    return Heart(heartbeat_file())


async def beat(heart: Heart) -> None:
    """Say that the loop goes round, as long as it does."""
    from orchestrator.core.heartbeat import BEAT_EVERY

    while True:
        heart.beat()
        await asyncio.sleep(BEAT_EVERY / 1e9)


def barred_by(book: GuardBook) -> Callable[[str], str]:
    """Return what says why no guest of a user is to be launched."""
    return lambda user: book.barred(user, time.time_ns())


@dataclass(frozen=True, slots=True)
class BannedByConsole:
    """Implements `door.Bans` and its lockdown by what the guard has written down, then by `others`."""

    book: GuardBook
    others: Callable[[str], Ban | None]

    def of(self, user: str, /) -> Ban | None:
        """Return the ban that is on a user now, if there is one."""
        from orchestrator.service.door import Ban

        self.book.news()
        ban = self.book.standing.ban(user, time.time_ns())
        if ban is None:
            return self.others(user)
        until = None if ban.until is None else datetime.fromtimestamp(ban.until / 1e9)
        return Ban(ban.reason, until)

    def lockdown(self) -> str | None:
        """Return why there is a lockdown, if there is one."""
        self.book.news()
        return self.book.standing.lockdown


@dataclass(frozen=True, slots=True)
class Heeding:
    """Has the engine go along with what the guard has done to guests. `book` has been read before."""

    book: GuardBook
    engine: Engine
    launcher: Launcher
    records: Records
    clock: Clock
    tell: Callable[[str], None]

    async def prepare_adoption(self) -> None:
        """Let guests answer that were frozen while nobody could take them over; they are paused again at once."""
        self.book.news()
        processes, hypervisor = self.launcher.processes, self.launcher.hypervisor
        for uuid, pid, _ in self.book.standing.frozen:
            if processes.find(uuid) == pid:
                processes.thaw(pid, uuid)
                with contextlib.suppress(OrchestratorError):
                    await hypervisor.mark_paused(uuid, paused=True)

    async def run(self) -> NoReturn:
        """Heed what the guard writes down from now on."""
        while True:
            await self.clock.sleep(LOOK_EVERY)
            records = self.book.news()
            for record in records:
                try:
                    await self._heed(record)
                except OrchestratorError:
                    continue  # the guest may have ended, by this very act
                except Exception as defect:
                    self.tell(f"a defect in orchestrator: heeding {record.kind}: {type(defect).__name__}: {defect}")
            if records:
                head = records[-1].head
                with contextlib.suppress(OrchestratorError):  # a full disk: the next head says as much
                    await self.records.intend("guard", {"seq": head.seq, "hash": head.hash})

    async def _heed(self, record: Record) -> None:
        if record.kind == REFUSED:
            return
        reason = record.body.get("reason", "")
        self.tell(f"the emergency console: {record.kind} {_named(record)}({reason})")
        for target in targets(record):
            guest = self.engine.guests.get(target["name"])
            # The process that was meant: it is there, or has just ended and has none after it yet.
            if guest is None or str(guest.domain.uuid) != target["uuid"] or guest.pid not in (None, target["pid"]):
                continue
            if record.kind in (Act.KILL, Act.RECLAIM):
                await self.engine.kill(guest.name, f"killed at the emergency console: {reason}")
            elif record.kind == Act.FREEZE:
                await self._pause(guest.name, int(target["pid"]), target["uuid"])
            elif record.kind == Act.THAW:
                await self.engine.resume(guest.name, emergency=True)

    async def _pause(self, name: str, pid: int, uuid: str) -> None:
        """Take a stopped process over: it is paused by its own QEMU, which libvirt and the rotation understand."""
        pausing = asyncio.create_task(self.engine.pause(name, emergency=True))
        await self.clock.sleep(_TAKES_OVER)
        self.launcher.processes.thaw(pid, uuid)
        await pausing


def heeding(engine: Engine, launcher: Launcher, records: Records, tell: Callable[[str], None]) -> Heeding:
    """Return what heeds the guard; its looks are no alarms of the scheduler's clock, which collects garbage between."""
    from orchestrator.host.clock import MonotonicClock

    return Heeding(guard_book(), engine, launcher, records, MonotonicClock(), tell)


@contextlib.asynccontextmanager
async def heeded(heeding: Heeding) -> AsyncIterator[None]:
    """Heed the guard meanwhile."""
    heeds = asyncio.create_task(heeding.run())
    try:
        yield
    finally:
        heeds.cancel()
        await asyncio.gather(heeds, return_exceptions=True)


def door(heeding: Heeding) -> Door:
    """Return the door of the daemon's API: who is banned or locked out by the console does not come in."""
    from orchestrator.service.door import Door
    from orchestrator.wiring.sent import BannedByPolicy

    engine = heeding.engine
    # A reader of its own: what it takes in is still news to who heeds.
    bans = BannedByConsole(heeding.book.reader(), BannedByPolicy(lambda: engine.policy).of)
    group, record = (lambda: engine.policy.users.admin_group), heeding.records.intend
    return Door(time.monotonic, group, bans, lockdown=bans.lockdown, record=record)


def _named(record: Record) -> str:
    names = [str(target["name"]) for target in targets(record)]
    return "".join(f"{name} " for name in (*names, record.body.get("user", "")) if name)

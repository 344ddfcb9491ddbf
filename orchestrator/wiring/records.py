"""Where a daemon writes down what it does: the journal, the store, and the chores process on the service core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.errors import HostError
from orchestrator.wiring import journals

if TYPE_CHECKING:
    from orchestrator.chores.launcher import ChoresProcess
    from orchestrator.core.policy import Policy
    from orchestrator.host.journal_file import JournalFile
    from orchestrator.ports import ChoresHealth, Clock
    from orchestrator.quotas import Accounting
    from orchestrator.recorder import Recorder
    from orchestrator.service.events import Events
    from orchestrator.service.overview import OverviewDesk
    from orchestrator.wall_clock import Calendar
    from orchestrator.wiring.journals import Witness

NANOSECONDS = 1_000_000_000

HEADS_EVERY = 60.0
"""Seconds between two times that the journal's head is kept elsewhere, if it is another one."""

_NUMBERS_LAST = 100_000
"""Nanoseconds: a daemon tells of fewer events than one each, so the next one's numbers are above all of its."""

HEALTH_EVERY = 1.0
"""Seconds between two looks at how the chores are doing."""


@contextlib.asynccontextmanager
async def recording(policy: Policy, tell: Callable[[str], None]) -> AsyncIterator[Recorder]:
    """Open everything, and close it when the daemon ends; `tell` is given what somebody should know.

    HostError says which folder cannot be written to, and what would work.
    """
    from orchestrator.chores.launcher import start_chores
    from orchestrator.core.chronicle import BEGAN, ENDED
    from orchestrator.host.places import state_directory
    from orchestrator.host.store import SqliteStore
    from orchestrator.recorder import Recorder

    state = state_directory(os.environ)
    with contextlib.ExitStack() as opened:
        journal, witness = opened.enter_context(journals.opened(journals.SCHEDULER, state))
        store = opened.enter_context(contextlib.closing(SqliteStore(state / "store.sqlite")))
        chores = await asyncio.to_thread(start_chores, state / "logs")
        for note in (*journal.notes, *witness.notes, *store.notes, *chores.notes):
            tell(f"note: {note}")
        limit = int(policy.logs.serial_limit)
        recorder = Recorder(journal, store, chores.client, time.time_ns, serial_limit=limit, tell=tell)
        watching = (
            asyncio.create_task(_watch(chores, tell)),
            asyncio.create_task(_keep_heads(journal, witness, tell)),
        )
        recorder.note(BEGAN)
        try:
            yield recorder
        finally:
            recorder.note(ENDED)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await recorder.close()
            await asyncio.to_thread(chores.stop)  # it ends by itself when all that it was given is durable


@contextlib.asynccontextmanager
async def recording_briefly(policy: Policy, tell: Callable[[str], None]) -> AsyncIterator[Recorder]:
    """Open the journal and the store for a scheduler that ends within seconds: nobody stays to keep logs after it."""
    from orchestrator.host.places import state_directory
    from orchestrator.host.store import SqliteStore
    from orchestrator.recorder import Recorder

    state = state_directory(os.environ)
    with contextlib.ExitStack() as opened:
        journal, witness = opened.enter_context(journals.opened(journals.SCHEDULER, state))
        store = opened.enter_context(contextlib.closing(SqliteStore(state / "store.sqlite")))
        for note in (*journal.notes, *witness.notes, *store.notes):
            tell(f"note: {note}")
        limit = int(policy.logs.serial_limit)
        recorder = Recorder(journal, store, NoChores(tell), time.time_ns, serial_limit=limit, tell=tell)
        try:
            yield recorder
        finally:
            await recorder.close()


class NoChores:
    """Does none of the chores, but tells of what the store could not remember."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def log(self, record: Mapping[str, Any]) -> None:
        """Tell it, if something is wrong."""
        from orchestrator.recorder import NOT_REMEMBERED

        if record["what"] == NOT_REMEMBERED:
            self._tell(f"{NOT_REMEMBERED}: {record['why']}")

    def metrics(self, sample: Mapping[str, Any]) -> None:
        """Do nothing."""

    def watch_serial(self, guest: str, path: str, limit: int) -> None:
        """Do nothing: what is printed stays where the guest's QEMU writes it."""

    def forget_serial(self, guest: str) -> None:
        """Do nothing."""

    def serial_lost(self, guest: str) -> int:  # noqa: ARG002 (the port's)
        """Return 0: nothing is taken from where the guest's QEMU writes it."""
        return 0

    def flush(self) -> None:
        """Do nothing."""

    def health(self) -> ChoresHealth:
        """Return that nothing was given to anybody."""
        from orchestrator.ports import ChoresHealth

        return ChoresHealth(
            sent=0, dropped=0, queue=0, durable=0, lost=0, serial_bytes=0, serial_lost=0, alive=False, trouble=""
        )


def accounting_of(
    recorder: Recorder, policy: Policy, calendar: Calendar, clock: Clock, tell: Callable[[str], None]
) -> Accounting:
    """Return the account of the daemon before, to go on with; a fresh one, aloud, if it cannot be read."""
    from orchestrator.core.account import Account
    from orchestrator.quotas import Accounting, moment_of

    moment = moment_of(calendar, int(clock.now() * NANOSECONDS))
    try:
        account = Account(policy.quotas.share_window, moment, recorder.accounts())
    except ValueError as error:
        tell(f"note: what users have used of time cannot be read ({error}), so it is counted anew")
        account = Account(policy.quotas.share_window, moment)
    return Accounting(calendar, account)


async def _keep_heads(journal: JournalFile, witness: Witness, tell: Callable[[str], None]) -> None:
    """Keep the journal's head elsewhere now and then; a disk that takes none is told of once."""
    told = ""
    while True:
        await asyncio.sleep(HEADS_EVERY)
        said = ""
        try:
            await asyncio.to_thread(witness.keep, journal.head)
        except (HostError, RuntimeError) as error:  # where no thread can be made, either
            said = f"a head of the journal is not kept elsewhere: {error}"
        if said and said != told:
            tell(said)
        told = said


def kept_events(recorder: Recorder) -> Events:
    """Return the events of a daemon: their numbers go on from those of the one before, and the log has who asked."""
    from orchestrator.service.events import Event, Events

    def keep(event: Event) -> None:
        recorder.asked(event.what, event.guest, event.owner, event.by, event.why)

    return Events(first=time.time_ns() // _NUMBERS_LAST, keep=keep)


async def keep_samples(overview: OverviewDesk, recorder: Recorder) -> NoReturn:
    """Write down now and then who is due what, and what users have used of their quotas."""
    from orchestrator.service.overview import MARK_EVERY, SAMPLE_EVERY

    marks = cycle(range(round(SAMPLE_EVERY / MARK_EVERY)))
    while True:
        overview.mark()
        if next(marks) == 0:
            for sample in overview.samples():
                recorder.sample(sample)
        await asyncio.sleep(MARK_EVERY)


async def _watch(chores: ChoresProcess, tell: Callable[[str], None]) -> None:
    """Give the chores what waits for them, and say when something becomes wrong with them."""
    told = ""
    while True:
        await asyncio.sleep(HEALTH_EVERY)
        health = chores.client.health()
        troubles = []
        if not health.alive:
            troubles.append(f"the chores process {chores.pid} has died, nothing is logged; serve anew, guests go on")
        elif health.trouble:
            troubles.append(f"the chores cannot write: {health.trouble}")
        if health.dropped or health.lost:
            troubles.append(f"{health.dropped} records did not fit into the queue, {health.lost} could not be kept")
        if health.serial_lost:
            least = 1 << health.serial_lost.bit_length() - 1  # so that a flood is not told of each time
            troubles.append(f"{least} bytes of serial output or more came faster than they could be kept")
        said = "; ".join(troubles)
        if said and said != told:
            tell(said)
        told = said

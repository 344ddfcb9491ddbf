"""What is written down of what the engine does: intents before, outcomes after, everything else for the log.

The journal and the store block, so one worker thread makes their calls, in order; the chores never block. What runs
is the truth, and the store only remembers it: a write that fails is told of, and made good when the scheduler next
starts. An end is done on a full disk, too, since it makes room: the journal is owed its record until it takes some.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.emergency import LATE
from orchestrator.core.health import Kept
from orchestrator.core.model import Mode
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.xml.domain import Domain
from orchestrator.errors import HostError, OrchestratorError
from orchestrator.ports import Chores, Ending, Journal, Store, StoredGuest

NOT_REMEMBERED = "not remembered"
"""What the event log calls a write that the store has refused."""

NOT_RECORDED = "not recorded"
"""What the event log calls an end that the journal has refused, and is owed."""

_OWED_AT_ONCE = 1000
"""So many ends are made good in one record."""

_MOST_KNOWN = 10_000
"""Of how many guests that have ended the log still says whose they were."""


class Records(Protocol):
    """What the engine wants written down."""

    async def intend(self, kind: str, body: Mapping[str, Any]) -> None:
        """Return when an intent is durable. HostError if it cannot be; the act must not follow then."""

    async def intend_end(self, kind: str, body: Mapping[str, Any]) -> None:
        """Return when the intent to end something is durable, or is owed: a full disk keeps nobody from making room."""

    def began(self, domain: Domain) -> None:
        """Note that a guest is there."""

    def moved(self, domain: Domain) -> None:
        """Note where a guest is that was elsewhere before."""

    def ended(self, domain: Domain, how: str, kind: str) -> None:
        """Note how a guest ended, in words for its owner; `kind` is one of ``stopped``, ``failed``, ``undone``."""

    def tell(self, notice: Notice) -> None:
        """Note what the scheduler tells."""

    def limit_serial(self, limit: int) -> None:
        """Keep so many bytes of what each guest's serial port prints from now on."""

    def serial_lost(self, guest: str) -> int:
        """Return how many bytes of a guest's serial output could not be kept, since this scheduler began."""

    def keep_accounts(self, texts: Mapping[str, str]) -> None:
        """Remember what `core.account.Account.dump` returned."""


class Unrecorded:
    """Writes nothing down: for a run in the foreground, which its user watches."""

    async def intend(self, kind: str, body: Mapping[str, Any]) -> None:
        """Write nothing down."""

    async def intend_end(self, kind: str, body: Mapping[str, Any]) -> None:
        """Write nothing down."""

    def began(self, domain: Domain) -> None:
        """Write nothing down."""

    def moved(self, domain: Domain) -> None:
        """Write nothing down."""

    def ended(self, domain: Domain, how: str, kind: str) -> None:
        """Write nothing down."""

    def tell(self, notice: Notice) -> None:
        """Write nothing down."""

    def limit_serial(self, limit: int) -> None:
        """Write nothing down."""

    def serial_lost(self, guest: str) -> int:  # noqa: ARG002 (the protocol's)
        """Return 0: all of it stays where the guest's QEMU writes it."""
        return 0

    def keep_accounts(self, texts: Mapping[str, str]) -> None:
        """Write nothing down."""


class Recorder:
    """Writes into the journal, the store and the event log. `wall` is nanoseconds since 1970.

    `tell` is given a line for what somebody should know.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        chores: Chores,
        wall: Callable[[], int],
        *,
        serial_limit: int,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tell = tell
        self._owed: list[dict[str, Any]] = []  # the worker thread's
        self._journal = journal
        self._store = store
        self._chores = chores
        self._wall = wall
        self._serial_limit = serial_limit
        self._serials: dict[str, str] = {}
        self._known: dict[str, tuple[str, bool]] = {}  # whose it is, and whether it takes turns
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder")

    async def intend(self, kind: str, body: Mapping[str, Any]) -> None:
        """Return when an intent is durable in the journal. HostError if it cannot be."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._append, kind, body)

    async def intend_end(self, kind: str, body: Mapping[str, Any]) -> None:
        """Return when the intent to end something is durable in the journal, or is owed, which is told."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._append, kind, body)
        except HostError as error:
            self._thread.submit(self._owed.append, {"kind": kind, "at": self._wall(), **body})
            why = f"{kind} of {body.get('guest', '')}: {error}"
            self._chores.log({"at": self._wall(), "what": NOT_RECORDED, "guest": body.get("guest", ""), "why": why})
            self._tell(f"{NOT_RECORDED}: {why}; it is done all the same, and recorded when there is room")

    def began(self, domain: Domain) -> None:
        """Remember a guest, and have its serial port's output kept."""
        self._serials[domain.spec.name] = domain.serial_log
        if len(self._known) > len(self._serials) + _MOST_KNOWN:
            self._known = {name: self._known[name] for name in self._serials if name in self._known}
        self._known[domain.spec.name] = (domain.owner, domain.spec.mode is Mode.SHARED)
        self._chores.watch_serial(domain.spec.name, domain.serial_log, self._serial_limit)
        self._write(self._store.put, self._stored(domain))

    def moved(self, domain: Domain) -> None:
        """Remember where a guest is now."""
        self._write(self._move, domain.spec.name, format_cpulist(domain.placement.held))

    def ended(self, domain: Domain, how: str, kind: str) -> None:
        """Forget a guest, and remember how it ended."""
        name = domain.spec.name
        self._serials.pop(name, None)
        self._chores.forget_serial(name)
        ending = Ending(name=name, owner=domain.owner, uuid=str(domain.uuid), ended_at=self._wall(), how=how, kind=kind)
        self._write(self._store.remove, name, ending)

    def tell(self, notice: Notice) -> None:
        """Put what the scheduler tells into the event log, as `core.chronicle` reads it; lengths in nanoseconds."""
        what = notice.what
        record = {"at": self._wall(), "what": what, "guest": notice.guest, "cores": notice.cores}
        if what is Happening.TURN_ENDED:
            record["lasted"] = notice.at - notice.since
        elif notice.guest:
            record["owner"], shared = self._known.get(notice.guest, ("", False))
            if what is Happening.TURN_BEGAN:
                record["shared"] = shared
                if notice.latest:
                    record["waited"], record["bound"] = notice.at - notice.since, notice.latest - notice.since
        if notice.why:
            record["why"] = notice.why
        self._chores.log(record)

    def asked(self, what: str, guest: str, owner: str, by: str, why: str) -> None:
        """Put into the event log who has asked for what."""
        self._chores.log({"at": self._wall(), "what": what, "guest": guest, "owner": owner, "by": by, "why": why})

    def note(self, what: str, why: str = "") -> None:
        """Put something into the event log that no guest has to do with."""
        self._chores.log({"at": self._wall(), "what": what, "why": why})

    def sample(self, sample: Mapping[str, Any]) -> None:
        """Put figures of this moment into the log of metrics, and make good what the journal is owed, if it can be."""
        self._thread.submit(self._pay_quietly)
        self._chores.metrics({"at": self._wall(), **sample})

    def kept(self) -> Kept:
        """Return how far the journal goes, and what could not be kept."""
        health = self._chores.health()
        return Kept(self._journal.head, health.dropped + health.lost)

    def limit_serial(self, limit: int) -> None:
        """Keep so many bytes of what each guest's serial port prints, of those that are there too."""
        if limit == self._serial_limit:
            return
        self._serial_limit = limit
        for name, log in self._serials.items():
            self._chores.watch_serial(name, log, limit)

    def serial_lost(self, guest: str) -> int:
        """Return how many bytes of a guest's serial output could not be kept, since this scheduler began."""
        return self._chores.serial_lost(guest)

    def keep_accounts(self, texts: Mapping[str, str]) -> None:
        """Remember what everybody has used of time. What cannot be written is written the next time it has changed."""
        self._write(self._store.put_accounts, texts)

    def accounts(self) -> Mapping[str, str]:
        """Return what was remembered of that; before anything else is written."""
        return self._store.accounts()

    async def reconcile(self, domains: list[Domain]) -> list[str]:
        """Have the store know these guests, which were found to run, and no others; return the names of those gone."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._reconcile, domains)

    async def close(self) -> None:
        """Write what is still to be written."""
        self._thread.submit(self._pay_quietly)
        await asyncio.to_thread(self._thread.shutdown)

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        self._pay()
        self._journal.append(kind, body, self._wall())

    def _pay(self) -> None:
        """Record what could not be as it was done."""
        while self._owed:
            acts = self._owed[:_OWED_AT_ONCE]
            self._journal.append(LATE, {"acts": acts}, self._wall())
            del self._owed[: len(acts)]

    def _pay_quietly(self) -> None:
        with contextlib.suppress(HostError):  # it was told as it was done
            self._pay()

    def _reconcile(self, domains: list[Domain]) -> list[str]:
        found = {domain.spec.name: domain for domain in domains}
        remembered = {guest.name: guest for guest in self._store.guests()}
        gone = sorted(remembered.keys() - found)
        for name in gone:
            guest, how = remembered[name], "its process was gone when the scheduler came back"
            ending = Ending(
                name=name, owner=guest.owner, uuid=guest.uuid, ended_at=self._wall(), how=how, kind="failed"
            )
            self._store.remove(name, ending)
        self._store.replace_all([remembered.get(name) or self._stored(found[name]) for name in sorted(found)])
        return gone

    def _move(self, name: str, cores: str) -> None:
        for guest in self._store.guests():
            if guest.name == name:
                self._store.put(replace(guest, cores=cores))

    def _stored(self, domain: Domain) -> StoredGuest:
        return StoredGuest(
            name=domain.spec.name,
            uuid=str(domain.uuid),
            owner=domain.owner,
            priority=domain.priority,
            specification=domain.specification,
            standing="active",
            cores=format_cpulist(domain.placement.held),
            started_at=self._wall(),
        )

    def _write(self, act: Callable[..., None], *arguments: object) -> None:
        self._thread.submit(act, *arguments).add_done_callback(self._told)

    def _told(self, outcome: Future[None]) -> None:
        failure = outcome.exception()
        if isinstance(failure, OrchestratorError):
            self._chores.log({"at": self._wall(), "what": NOT_REMEMBERED, "why": str(failure)})
        elif failure is not None:
            raise failure

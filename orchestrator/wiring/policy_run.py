"""A policy brought in force: compared with what there is, and carried out, once.

With a daemon it does the acts; without one this process does, as far as that goes: shared guests need somebody who
gives them turns for as long as they are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.desired import IDLE, Change, Desired, Present, changes
from orchestrator.core.lifecycle import State
from orchestrator.core.model import GuestSpec, Mode
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.errors import OutcomeUnknownError
from orchestrator.wiring.client import find, sent_definition, with_client
from orchestrator.wiring.guests import build_launcher, live_domains, open_hypervisor
from orchestrator.wiring.policy_check import check
from orchestrator.wiring.site import load_topology, owner

if TYPE_CHECKING:
    from orchestrator.core.policy import Policy
    from orchestrator.engine import Engine, Guest
    from orchestrator.ports import LiveDomain
    from orchestrator.reconcile import Made
    from orchestrator.service.messages import PolicyRequest

GRACE = 15.0
"""Seconds beyond its limit that a run without a daemon has to clear up after itself."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A policy file without faults, and what it says at this moment; `connect` is where libvirt is."""

    file: Path
    policy: Policy
    present: Policy

    @property
    def connect(self) -> str:
        """Return where libvirt is."""
        return self.policy.hypervisor.connect


def ready(file: Path) -> Ready:
    """Read a policy and its definitions, and what it wants now; raises UsageError with every fault."""
    from orchestrator.core.windows import effective
    from orchestrator.host.calendar import HostCalendar

    checked = check(file)
    return Ready(checked.file, checked.policy, effective(checked.policy, HostCalendar().local()).policy)


async def plan(wanted: Ready, socket: Path | None) -> Any:
    """Return what a run would change now; nothing is done."""
    from orchestrator.reconcile import Made

    daemon, request = find(socket), _request(wanted, dry_run=True)
    if daemon is not None:
        return await with_client(daemon, lambda client: client.policy(request))
    guests = await _guests(wanted, request)
    return _told(request, guests, [Made(each) for each in await _changes_here(wanted, guests)])


async def run(wanted: Ready, socket: Path | None, limit: float, tell: Tell) -> Any:
    """Have everything as the policy wants it, and return what has become of each change.

    RefusedError if another run is under way, OutcomeUnknownError if the time is up before it is known; the next run
    completes what this one has begun.
    """
    from orchestrator.host.places import runtime_directory
    from orchestrator.host.writer_lock import WriterLock

    lock = WriterLock(runtime_directory(os.environ) / "policy-run.lock", "policy run", "it is left to that one")
    lock.acquire()
    late = f"{wanted.file}: not done within {limit:g} s (--limit gives it more); the next run goes on from there"
    try:
        async with asyncio.timeout(limit):
            daemon, request = find(socket), _request(wanted, dry_run=False)
            if daemon is None:
                with _ending_after(limit + GRACE, late):
                    return await _run_here(wanted, request, tell)
            return await with_client(daemon, lambda client: client.policy(request))
    except TimeoutError:
        raise OutcomeUnknownError(late) from None
    finally:
        lock.release()


@contextlib.contextmanager
def _ending_after(seconds: float, line: str) -> Iterator[None]:
    """End this process, with a last line, if it takes longer than that: a call of libvirt's may never come back."""

    def end(_number: int, _frame: object) -> None:
        os.write(2, f"{line}\n".encode())
        os._exit(OutcomeUnknownError.exit_code)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _request(wanted: Ready, *, dry_run: bool) -> PolicyRequest:
    from orchestrator.policy_schema import SCHEMA
    from orchestrator.service.messages import DesiredGuests, PolicyRequest
    from orchestrator.toml_tables import plain

    guests = tuple(
        DesiredGuests(sent_definition(Path(each.definition)), each.owner or owner(), each.count)
        for each in wanted.present.guest
    )
    return PolicyRequest(str(wanted.file), plain(wanted.policy, SCHEMA), guests, dry_run)


# Without a daemon.


async def _guests(wanted: Ready, request: PolicyRequest) -> list[Guest]:
    """Return the guests that are wanted now, each ready to be placed."""
    from orchestrator.host.opening import UserFiles
    from orchestrator.service.policies import read_desired
    from orchestrator.wiring.sent import SentDefinitions

    return await read_desired(SentDefinitions(wanted.present, UserFiles((SERVICE_CORE,))), request.guests)


async def _changes_here(wanted: Ready, guests: Sequence[Guest]) -> tuple[Change, ...]:
    """Compare with what libvirt and the kernel leave to be read; nobody is asked."""
    from orchestrator.config import decode_guest

    present = [_present(live, decode_guest(live.metadata.specification)) for live in await live_domains(wanted.connect)]
    desired = [Desired(spec=guest.spec, owner=guest.owner) for guest in guests]
    return changes(desired, present, rotates=False)


def _present(live: LiveDomain, spec: GuestSpec) -> Present:
    still = live.state == "paused" and spec.mode is Mode.EXCLUSIVE
    return Present(
        spec=spec,
        owner=live.metadata.owner,
        state=State.STOPPED if live.pid is None else State.PAUSED if still else State.RUNNING,
        by_policy=live.metadata.by_policy,
        interrupted=still and live.pid is not None and not live.metadata.paused,
    )


async def _run_here(wanted: Ready, request: PolicyRequest, tell: Tell) -> Any:
    """Start and end exclusive guests in this process, as the scheduler of this moment, if there is anything to do."""
    from orchestrator.engine import require_pool
    from orchestrator.reconcile import idle, make

    guests = await _guests(wanted, request)
    todo = await _changes_here(wanted, guests)
    if all(each.what in IDLE for each in todo):
        return _told(request, guests, [idle(each) for each in todo])
    require_pool(load_topology(wanted.present))
    async with _scheduler(wanted, tell) as (engine, running):
        making = asyncio.create_task(make(todo, {guest.spec.name: guest for guest in guests}, EngineHands(engine)))
        await asyncio.wait({making, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # raises what ended it
        return _told(request, guests, making.result())


def _told(request: PolicyRequest, guests: Sequence[Guest], made: Sequence[Made]) -> Any:
    """Return the same as a daemon tells. Without one no values are in force, so none changes."""
    import msgspec

    from orchestrator.service.policies import view_policy

    return msgspec.to_builtins(view_policy(request, len(guests), made, scheduler=False))


@dataclass(frozen=True, slots=True)
class EngineHands:
    """Starts and ends guests as an engine does that nobody else asks for anything."""

    engine: Engine

    async def start(self, guest: Guest) -> None:
        """Start a guest, and return when it runs."""
        await self.engine.start([guest])

    async def stop(self, name: str) -> None:
        """End a guest; fine if it has ended."""
        await self.engine.stop([name])


@contextlib.asynccontextmanager
async def _scheduler(wanted: Ready, tell: Tell) -> AsyncIterator[tuple[Engine, asyncio.Task[Any]]]:
    """Be the one scheduler of this host meanwhile; guests go on when it ends."""
    from orchestrator.config import decode_guest
    from orchestrator.engine import Engine
    from orchestrator.host.calendar import HostCalendar
    from orchestrator.host.clock import MonotonicClock
    from orchestrator.host.places import runtime_directory
    from orchestrator.host.writer_lock import WriterLock
    from orchestrator.wiring.records import accounting_of, recording_briefly

    lock = WriterLock(runtime_directory(os.environ) / "scheduler.lock")
    lock.acquire()
    try:
        async with open_hypervisor(wanted.connect) as hypervisor, recording_briefly(wanted.present, tell) as recorder:
            topology = load_topology(wanted.present)
            launcher = build_launcher(topology, hypervisor, wanted.connect, wanted.present.hypervisor)
            clock, policy = MonotonicClock(), wanted.present
            accounting = accounting_of(recorder, policy, HostCalendar(), clock, tell)
            engine = Engine(topology, policy, launcher, clock, records=recorder, accounting=accounting)
            for note in await engine.adopt(decode_guest):
                tell(note)
            await recorder.reconcile([guest.domain for guest in engine.guests.values()])
            running = asyncio.create_task(engine.run())
            try:
                yield engine, running
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                for guest in engine.guests.values():
                    await guest.monitor.close()
    finally:
        lock.release()

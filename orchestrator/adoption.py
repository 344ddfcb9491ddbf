"""Taking over what runs already: the live domains and their threads are the truth, whatever was remembered of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.core.life import RUNS, STANDS
from orchestrator.core.model import GuestSpec, Mode
from orchestrator.core.moves import fewer
from orchestrator.core.placement import Placement
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.snapshot import Known, Standing
from orchestrator.core.xml.domain import Domain
from orchestrator.errors import FailedError, OrchestratorError, UsageError
from orchestrator.launch import Guest, Launcher, RunningGuest
from orchestrator.monitor_ports import LOADS
from orchestrator.ports import SHUT_OFF, LiveDomain

RUNNING, CRASHED = "running", "crashed"
"""libvirt's words for a domain that runs, and for one whose kernel has panicked and which was kept."""


class _UnfinishedError(FailedError):
    """What was going on with a guest cannot be finished by another scheduler, and it was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A guest that was taken over: its definition, and its connection.

    It was `paused` by its user (or kept for inspection: then nobody knows why any more), or `crashed` and kept. It
    `goes_on` if nobody wanted it to stand still: its scheduler ended while it was about to begin, or was moved.
    """

    guest: Guest
    running: RunningGuest
    runs: bool
    paused: bool
    crashed: bool
    goes_on: bool = False


async def adopt(
    launcher: Launcher, scheduler: Scheduler, decode: Callable[[str], GuestSpec], now: Callable[[], int]
) -> tuple[list[Adopted], list[str]]:
    """Take over every live guest, the exclusive ones first; return them, and a line for each that needed something.

    A shared guest that runs where it may not is stopped, and waits for a turn. One that cannot be taken over is left
    as it is, and said so. Back ends whose guest has ended while nobody was there to see it are ended.
    """
    adopted: list[Adopted] = []
    notes: list[str] = []

    async def attach(live: LiveDomain) -> tuple[Adopted, LiveDomain] | None:
        try:
            return await _attach(launcher, live, decode(live.metadata.specification)), live
        except _UnfinishedError as error:
            notes.append(f"{live.name}: {error}")
        except OrchestratorError as error:
            notes.append(f"{live.name}: cannot be taken over, and is left alone: {error}")
        return None

    alive = [live for live in await launcher.hypervisor.domains() if live.state != SHUT_OFF]
    # All at once: each waits for the answers of a QEMU of its own.
    found = [pair for pair in await asyncio.gather(*map(attach, alive)) if pair is not None]
    for one, live in sorted(found, key=_order):
        try:
            note = await _enter(launcher, scheduler, one, live, now)
        except OrchestratorError as error:
            notes.append(f"{live.name}: cannot be taken over, and is left alone: {error}")
            await one.running.monitor.close()
        else:
            adopted.append(one)
            notes += [f"{live.name}: {note}"] if note else []
    notes += await launcher.back_ends.sweep([live.metadata.directory for live in alive])
    return adopted, notes


def _order(pair: tuple[Adopted, LiveDomain]) -> tuple[bool, bool, str]:
    """Exclusive guests first, then who runs: whoever is entered may be given what is free by then."""
    one, live = pair
    return one.guest.spec.mode is not Mode.EXCLUSIVE, not one.runs, live.name


async def _attach(launcher: Launcher, live: LiveDomain, spec: GuestSpec) -> Adopted:
    metadata = live.metadata
    if metadata.mould:
        await launcher.hypervisor.remove(live.uuid)
        raise _UnfinishedError("a template was being made with it, which came to nothing; removed")
    guest = Guest(
        spec=spec,
        specification=metadata.specification,
        owner=metadata.owner,
        emulator="",  # it has been started already
        accelerator=metadata.accelerator,
        by_policy=metadata.by_policy,
        staged=metadata.staged,
        disk=metadata.disk,
    )
    placement = Placement(
        pool=launcher.topology.pool, vcpus=metadata.vcpus, emulator=metadata.emulator, held=metadata.held
    )
    domain: Domain = replace(guest.placed(placement, metadata.directory), uuid=live.uuid, mapped=metadata.mapped)
    crashed = live.state == CRASHED
    running = await launcher.attach(domain)
    if await running.monitor.status() == LOADS:
        await running.monitor.close()
        await launcher.clear(domain)
        raise _UnfinishedError(
            "its state was being loaded when the last scheduler ended; it was removed, the state is not"
        )
    await running.monitor.stop_saving()
    # QEMU's own word: libvirt's can be that of a moment before the last scheduler ended.
    status = await running.monitor.status()
    runs = status == RUNS
    exclusive = spec.mode is Mode.EXCLUSIVE
    still = exclusive and not runs
    if exclusive and len(running.roles.vcpus) < len(placement.vcpus):  # it was to grow, or has let go of one late
        placement = fewer(placement, len(running.roles.vcpus), spec)
        running.domain = replace(domain, placement=placement)
        await launcher.hypervisor.mark_placed(str(live.uuid), placement)
    return Adopted(
        guest=guest,
        running=running,
        runs=runs,
        paused=(metadata.paused or still) and not crashed,
        crashed=crashed,
        goes_on=still and not metadata.paused and not crashed and status in STANDS,
    )


async def _enter(
    launcher: Launcher, scheduler: Scheduler, one: Adopted, live: LiveDomain, now: Callable[[], int]
) -> str:
    """Enter a guest into the scheduler's books, and return what had to be done about it."""
    running, exclusive = one.running, one.guest.spec.mode is Mode.EXCLUSIVE
    launched, seated = running.domain.placement, launcher.seated(running)
    runs = one.runs
    standing = Standing.PAUSED if one.paused or one.crashed else Standing.ACTIVE
    known = Known(
        spec=one.guest.spec,
        owner=one.guest.owner,
        priority=live.metadata.priority,
        standing=standing,
        placement=launched,
        kept=launched.held if exclusive else (),
        disk=live.metadata.disk,
    )
    if exclusive:
        running.ran = runs or live.metadata.paused or one.crashed  # else a start was cut short
        scheduler.adopt(known, launched.held, now(), running=runs)
        if seated is None or (seated.vcpus, seated.emulator) != (launched.vcpus, launched.emulator):
            launcher.move(running, launched)
            return "its threads were not where its placement wants them, and were moved back"
        return ""
    running.ran = True
    cores = () if seated is None else scheduler.whole_units(seated.held)
    if runs and standing is Standing.ACTIVE and cores:
        try:
            scheduler.adopt(known, cores, now(), running=True)
        except UsageError as error:
            why = str(error)
        else:
            running.domain = replace(running.domain, placement=replace(seated or launched, held=cores))
            return ""
    elif runs:
        why = (
            "it runs although it is paused" if standing is Standing.PAUSED else "its threads are on no cores of a turn"
        )
    if seated is None:
        launcher.move(running, launched)
    else:  # where it is, so that it is moved before its next turn
        running.domain = replace(running.domain, placement=seated)
    if runs:
        await launcher.suspend(running)
        scheduler.adopt(known, (), now(), running=False)
        return f"was stopped: {why}"
    scheduler.adopt(known, (), now(), running=False)
    return ""

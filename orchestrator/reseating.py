"""One guest on other cores, or with more or fewer vCPUs, while it is there. Which and when is the engine's word.

Every order of things here is for a scheduler that is killed in between: the domain's metadata never name fewer vCPUs or
other cores than those whose locks the guest holds, so whoever takes it over finds where it was to be, and moves it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from orchestrator.core.placement import Placement
from orchestrator.errors import FailedError, OrchestratorError, OutcomeUnknownError
from orchestrator.launch import Launcher, RunningGuest
from orchestrator.ports import Clock

RESEAT_LIMIT = 60.0
"""Seconds in which a guest must be on its new cores; for a vCPU to go libvirt waits five, and a lab is slow."""

GO_LIMIT = 25.0
"""Seconds in which a guest must let go of a vCPU, beyond the five that libvirt waits: its kernel has work to do."""

_UNHEARD = (
    "libvirt takes it to have as many vCPUs already, for under emulation QEMU does not tell of one that goes; "
    "start the guest anew to grow it again"
)

GO_EVERY = 0.25
"""Seconds between two looks whether it has."""


async def reseat(launcher: Launcher, guest: RunningGuest, placement: Placement, clock: Clock) -> None:
    """Have as many vCPUs as a placement has cores for, and every thread where it says, as read back from the kernel.

    FailedError if it is as before; OutcomeUnknownError if nobody knows, or the guest may still let go of a vCPU, or
    libvirt hangs: a guest that is stopped for it must not be left so.
    """
    guest.reseating = True
    try:
        await asyncio.wait_for(_reseat(launcher, guest, placement, clock), RESEAT_LIMIT)
    except TimeoutError:
        raise OutcomeUnknownError(
            f"{guest.name}: whether it is on its new cores is not known after {RESEAT_LIMIT:g} s; "
            "it keeps the old ones too until the same is asked for once more"
        ) from None
    finally:
        guest.reseating = False


async def _reseat(launcher: Launcher, guest: RunningGuest, placement: Placement, clock: Clock) -> None:
    guest.roles = await guest.monitor.thread_roles()  # a vCPU may have come or gone since, without our doing
    if len(placement.vcpus) < len(guest.roles.vcpus):
        await _shrink(launcher, guest, placement, clock)
    else:
        await _move_or_grow(launcher, guest, placement)
    guest.cores.update(placement.held)


async def _move_or_grow(launcher: Launcher, guest: RunningGuest, placement: Placement) -> None:
    uuid, before = str(guest.domain.uuid), guest.domain.placement
    try:
        await launcher.hypervisor.mark_placed(uuid, placement)
        if len(placement.vcpus) > len(guest.roles.vcpus):
            await launcher.hypervisor.set_vcpus(uuid, placement.vcpus)
            guest.roles = await guest.monitor.thread_roles()
            if len(guest.roles.vcpus) < len(placement.vcpus):
                raise FailedError(f"{guest.name}: {_UNHEARD}")
        launcher.move(guest, placement)
        _count(guest, placement)
    except OrchestratorError as failure:
        await _back(launcher, guest, before, failure)
        raise


async def _back(launcher: Launcher, guest: RunningGuest, before: Placement, failure: OrchestratorError) -> None:
    """Have a guest as it was; OutcomeUnknownError if that cannot be."""
    try:
        guest.roles = await guest.monitor.thread_roles()
        launcher.move(guest, replace(before))
        _count(guest, before)
        await launcher.hypervisor.mark_placed(str(guest.domain.uuid), before)
    except OrchestratorError as worse:
        raise OutcomeUnknownError(f"{failure}; it could not be put back as it was: {worse}") from failure
    if isinstance(failure, OutcomeUnknownError):
        raise FailedError(f"{failure}; it is as it was before") from failure


async def _shrink(launcher: Launcher, guest: RunningGuest, placement: Placement, clock: Clock) -> None:
    """Ask the guest to let go of vCPUs first; the rest cannot be taken back, and is tried anew by who asks again."""
    try:
        await launcher.hypervisor.set_vcpus(str(guest.domain.uuid), placement.vcpus)
    except OutcomeUnknownError:
        if not await _lets_go(guest, len(placement.vcpus), clock):
            raise
    try:
        guest.roles = await guest.monitor.thread_roles()
        _count(guest, placement)
        launcher.move(guest, placement)
        await launcher.hypervisor.mark_placed(str(guest.domain.uuid), placement)
    except OrchestratorError as error:
        raise OutcomeUnknownError(
            f"{error}; its cores stay its own until `orchestrator resize` is asked for once more"
        ) from error


async def _lets_go(guest: RunningGuest, vcpus: int, clock: Clock) -> bool:
    """Wait until a guest has let go of vCPUs, for longer than libvirt does; False if it has not by then."""
    end = clock.now() + GO_LIMIT
    while len(guest.roles.vcpus) > vcpus:
        if clock.now() >= end:
            return False
        await clock.sleep(GO_EVERY)
        guest.roles = await guest.monitor.thread_roles()
    return True


def _count(guest: RunningGuest, placement: Placement) -> None:
    if sorted(guest.roles.vcpus) != list(range(len(placement.vcpus))):
        raise FailedError(f"{guest.name}: QEMU has vCPUs {sorted(guest.roles.vcpus)}, and not {len(placement.vcpus)}")

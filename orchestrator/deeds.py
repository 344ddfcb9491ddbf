"""Single orders of the scheduler, done on the host through the launcher. No decision is taken here."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.lifecycle import Event
from orchestrator.core.model import Mode
from orchestrator.core.orders import Freeze, Kill, Order
from orchestrator.core.placement import Placement, seat
from orchestrator.core.steps import End, Launch, Reseat
from orchestrator.errors import OrchestratorError
from orchestrator.launch import NANOSECONDS, RunningGuest
from orchestrator.reseating import reseat
from orchestrator.together import first_of

if TYPE_CHECKING:
    from orchestrator.driver import Driver


class Due(NamedTuple):
    """An order; if it has been begun already, `confirmation` is to be awaited."""

    order: Order
    confirmation: Awaitable[None] | None = None


class Deeds:
    """Does what the driver is ordered, one by one."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def begin(self, turn: Continue) -> Awaitable[None] | None:
        """Let a guest run at once, and return what confirms it; None if that takes more than to tell its QEMU."""
        guest = self._driver.guests[turn.guest]
        return self._driver.launcher.begin_to_resume(guest, self._seat(guest, turn.cores))

    async def act(self, due: Due) -> None:
        """Do it, and return when that is confirmed."""
        order, launcher = due.order, self._driver.launcher
        name = order.guest
        match order:
            case Launch():
                await self._driver.records.intend("start", self._intent(name, order))
                await self._launch(name, order)
            case Continue(_, cores, _, _):
                guest = self._driver.guests[name]
                await launcher.resume(guest, self._seat(guest, cores), due.confirmation)
            case Halt():
                await launcher.suspend(self._driver.guests[name])
            case Reseat():
                await self._reseat(self._driver.guests[name], order.placement)
            case End():
                await self._driver.records.intend_end("end", {"guest": name})
                await self._end(self._driver.guests[name])
            case Freeze() | Kill():
                self._force(order)

    async def _launch(self, name: str, order: Launch) -> None:
        wanted = self._driver.wanted[name]
        domain = wanted.placed(order.placement, self._driver.launcher.files.directory(name))
        async with self._driver.clearing[name]:  # its uuid is that of the one before
            guest = await self._driver.launcher.launch(domain, wanted.origin)
            guest.disk = wanted.disk
            self._driver.guests[name] = guest
            self._driver.wanted[name] = replace(wanted, origin=None, staged=False)
        self._driver.observer.launched(guest)

    def _seat(self, guest: RunningGuest, cores: tuple[int, ...]) -> Placement:
        """Return where a guest runs now: an exclusive one where it is, a shared one on the cores of its turn."""
        spec, before, topology = guest.domain.spec, guest.domain.placement, self._driver.launcher.topology
        stays = spec.mode is Mode.EXCLUSIVE or before.held == cores
        return before if stays else seat(spec, cores, topology, topology.pool)

    async def _reseat(self, guest: RunningGuest, placement: Placement) -> None:
        cores = {"cores": list(placement.vcpus), "held": list(placement.held)}
        await self._driver.records.intend("reseat", {"guest": guest.name, **cores})
        await reseat(self._driver.launcher, guest, placement, self._driver.clock)
        self._driver.records.moved(guest.domain)

    async def _end(self, guest: RunningGuest) -> None:
        """Let a guest shut down by itself, for as long as it may, then end it by force."""
        life = self._driver.lives[guest.name]
        if life.grace and await self._press(guest):
            await first_of(guest.hung_up.wait(), self._driver.clock.sleep(life.grace / NANOSECONDS))
            if not guest.hung_up.is_set() and life.asked is not None:  # nor is it quarantined
                life.happens(Event.GRACE_OVER)
        await self._driver.clear(guest)

    async def _press(self, guest: RunningGuest) -> bool:
        """Press the power button; False if that cannot be done."""
        with contextlib.suppress(OrchestratorError):
            await guest.monitor.powerdown()
            return True
        return False

    def _force(self, order: Freeze | Kill) -> None:
        """Freeze or kill without the guest's help; one whose launch came to nothing may have no process."""
        name, processes = order.guest, self._driver.launcher.processes
        uuid = self._driver.wanted[name].uuid(self._driver.launcher.files.directory(name))
        if (pid := processes.find(uuid)) is None:
            self._driver.scheduler.gone(name, "its process has gone", self._driver.now())
        elif isinstance(order, Freeze):
            processes.freeze(pid, uuid)
        else:
            processes.kill(pid, uuid)

    def _intent(self, name: str, order: Launch) -> dict[str, Any]:
        guest, cores = self._driver.wanted[name], list(order.placement.held)
        return {"guest": name, "owner": guest.owner, "cores": cores, "specification": guest.specification}

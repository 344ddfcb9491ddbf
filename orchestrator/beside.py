"""Looks after what works for guests beside their QEMU: back ends on the service core, and the kernel's own threads.

Who has moved one of them has it put back by `drift`. A guest whose back end has ended is of no use any more: its disk
answers nothing, and where it runs on it waits for ever. So it is ended too, which counts as a crash of its QEMU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.backend_ports import BackEnds
from orchestrator.core.backends import back_ends
from orchestrator.core.lifecycle import Event
from orchestrator.core.model import NetworkKind
from orchestrator.core.pins import Adrift, adrift
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.core.xml.domain import Domain
from orchestrator.ports import Processes
from orchestrator.running import RunningGuest

if TYPE_CHECKING:
    from orchestrator.driver import Driver


def back_ends_trouble(started: BackEnds, domain: Domain) -> str:
    """Say which of a guest's back ends has ended; empty if all go on."""
    found = started.processes(domain.directory) if back_ends(domain) else {}
    ended = [name for name, pid in found.items() if pid is None]
    if not ended:
        return ""
    words = started.last_words(domain.directory)
    return f"its back end {', '.join(ended)} has ended" + (f": {words}" if words else "")


def workers_of(processes: Processes, guest: RunningGuest) -> tuple[int, ...]:
    """Return the threads of the kernel that work for a guest: those of its network card on a bridge."""
    bridged = guest.domain.spec.network.kind in (NetworkKind.BRIDGE, NetworkKind.NETWORK)
    return tuple(processes.workers(guest.pid)) if bridged and guest.pid is not None else ()


class Beside:
    """Looks at what works beside the guests of one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lost: dict[str, int] = {}

    def adrift(self, guest: RunningGuest) -> tuple[Adrift, ...]:
        """Return the threads beside a guest's QEMU that somebody has moved. Two system calls for each thread."""
        processes = self._driver.launcher.processes
        found: list[Adrift] = []
        for pid in filter(None, guest.back_ends.values()):
            found += adrift(processes.standing(pid), {}, (), (SERVICE_CORE,))
        for tid in guest.workers:
            found += adrift(processes.standing(tid), {}, (), guest.domain.placement.emulator)
        return tuple(found)

    def names(self, guest: RunningGuest) -> dict[int, str]:
        """Return what the threads beside a guest's QEMU are called."""
        pids = (*filter(None, guest.back_ends.values()), *guest.workers)
        return {thread.tid: thread.name for pid in pids for thread in self._driver.launcher.processes.threads(pid)}

    def look_anew(self, guest: RunningGuest) -> None:
        """See which there are now; a guest that has been without a back end for two looks is ended.

        As a guest ends, its back ends may be gone a moment before its end is heard of.
        """
        launcher = self._driver.launcher
        guest.workers = workers_of(launcher.processes, guest)
        if not guest.back_ends:
            return
        guest.back_ends = dict(launcher.back_ends.processes(guest.domain.directory))
        why, pid = back_ends_trouble(launcher.back_ends, guest.domain), guest.pid or 0
        if not why:
            self._lost.pop(guest.name, None)
        elif self._lost.get(guest.name) != pid:
            self._lost[guest.name] = pid
        else:
            self._driver.lives[guest.name].blame(Event.QEMU_CRASHED, why)
            launcher.processes.kill(pid, str(guest.domain.uuid))

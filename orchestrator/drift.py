"""Puts threads back that somebody else has let run where their placement does not: taskset, virsh, a cgroup, chrt.

It looks with the scheduler's own eyes, on core 0: where a shared guest belongs changes with each turn, and whoever knew
that a moment later than the one who changes it would put threads back to where they were. What works for a guest beside
its QEMU is looked at too. A look is two system calls for each thread. What is found is put right at once, and then
recorded: a disk that is slow must not keep a thread on a core that is not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.beside import Beside
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.pins import Adrift, adrift
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.driver import Driver
from orchestrator.errors import FailedError, OrchestratorError
from orchestrator.launch import RunningGuest

_SERVICE = frozenset({SERVICE_CORE})
"""Where back ends belong, and no thread of a guest's QEMU ever does."""


class DriftKeeper:
    """Keeps the threads of all guests where they belong. `tell` is told what was found, and what became of it."""

    def __init__(self, driver: Driver, tell: Callable[[Notice], None]) -> None:
        self._driver = driver
        self._tell = tell
        self._stuck: dict[str, tuple[Adrift, ...]] = {}
        self._beside = Beside(driver)

    def look(self, *, still: bool = True) -> None:
        """Look at each guest that has a process, and is not being moved. O(threads).

        Without `still`, only at those that run: threads of the others use next to no time wherever they may. With it,
        which back ends there are is seen anew.
        """
        for name, guest in list(self._driver.guests.items()):
            if not still and guest.charge.cores == 0:
                continue
            steady = guest.pid is not None and not guest.reseating and not guest.over
            if steady and still:
                self._beside.look_anew(guest)
            found = (*self._found(guest), *self._beside.adrift(guest)) if steady else ()
            if not found:
                self._stuck.pop(name, None)
            elif self._stuck.get(name) != found:
                self._see_to(guest, found)

    def _found(self, guest: RunningGuest) -> tuple[Adrift, ...]:
        placement, standing = guest.domain.placement, self._driver.launcher.processes.standing(guest.pid or 0)
        if sorted(guest.roles.vcpus) != list(range(len(placement.vcpus))):
            return ()  # a vCPU that is still to go: whoever has it resized sees to it
        return adrift(standing, guest.roles.vcpus, placement.vcpus, placement.emulator)

    def _see_to(self, guest: RunningGuest, found: tuple[Adrift, ...]) -> None:
        names = {thread.tid: thread.name for thread in self._driver.launcher.processes.threads(guest.pid or 0)}
        if not names:
            return  # it has ended
        names |= self._beside.names(guest)
        what = "; ".join(f"thread {each.tid} ({names.get(each.tid, 'gone')}) {each}" for each in found)
        failure = self._put_back(guest, found)
        if failure is None:
            guest.put_back += len(found)
            happening, what = Happening.PUT_BACK, f"{what}; put back"
        else:
            self._stuck[guest.name] = found
            happening, what = Happening.ASTRAY, f"{what}; it cannot be put back: {failure}"
        placement = guest.domain.placement
        self._tell(Notice(happening, guest.name, self._driver.now(), placement.held, why=what))
        body = {
            "guest": guest.name,
            "found": [each.describe(names.get(each.tid, "")) for each in found],
            "put_back": failure is None,
        }
        self._driver.begin(self._record(guest.name, body))

    def _put_back(self, guest: RunningGuest, found: Sequence[Adrift]) -> OrchestratorError | None:
        """Put all threads where they belong; return why that cannot be."""
        processes, placement = self._driver.launcher.processes, guest.domain.placement
        try:
            for each in found:
                if each.realtime:
                    processes.calm(each.tid)
                if each.expected == _SERVICE:
                    processes.pin(each.tid, _SERVICE)
            try:
                self._driver.launcher.move(guest, placement)
            except FailedError:
                processes.gather(guest.pid or 0)  # another cgroup may not let it where it belongs
                self._driver.launcher.move(guest, placement)
        except OrchestratorError as error:
            return error
        return None

    async def _record(self, name: str, body: dict[str, object]) -> None:
        try:
            await self._driver.records.intend("put back", body)
        except OrchestratorError as error:
            self._tell(Notice(Happening.ASTRAY, name, self._driver.now(), why=f"that is not in the journal: {error}"))

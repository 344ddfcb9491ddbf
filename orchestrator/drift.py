"""Puts threads back that somebody else has let run where their placement does not: taskset, virsh, a cgroup, chrt.

And processes that somebody has taken out of their guest's control group, where the kernel bounds what they may have.

It looks with the scheduler's own eyes, on core 0: where a shared guest belongs changes with each turn, and whoever knew
that a moment later than the one who changes it would put threads back to where they were. What works for a guest beside
its QEMU is looked at too. A look is two system calls for each thread. What is found is put right at once, and then
recorded: a disk that is slow must not keep a thread on a core that is not its own. A guest that has been killed is left
as it is: the guard has its threads end before all else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.beside import Beside
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.pins import Adrift, adrift
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.driver import Driver
from orchestrator.errors import FailedError, OrchestratorError
from orchestrator.launch import RunningGuest

_SERVICE = frozenset({SERVICE_CORE})
"""Where back ends belong, and no thread of a guest's QEMU ever does."""

_SELDOM = 5
"""Looks between two at the control group of a guest that stands still."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Threads that are not where they belong, and the control group that the process is in, if that is not its own."""

    threads: tuple[Adrift, ...]
    group: str

    def __bool__(self) -> bool:
        return bool(self.threads or self.group)


class DriftKeeper:
    """Keeps the threads of all guests where they belong. `tell` is told what was found, and what became of it."""

    def __init__(self, driver: Driver, tell: Callable[[Notice], None]) -> None:
        self._driver = driver
        self._tell = tell
        self._stuck: dict[str, _Found] = {}
        self._beside = Beside(driver)

    def look(self, *, still: bool = True) -> None:
        """Look at each guest that has a process, and is not being moved. O(threads).

        Without `still`, only at those that run: threads of the others use next to no time wherever they may. With it,
        which back ends there are is seen anew, and a file read that says in which control group QEMU is: now and then
        if it stands still, for who brings one out of its cpuset has changed where its threads may run.
        """
        for name, guest in list(self._driver.guests.items()):
            if not still and guest.charge.cores == 0:
                continue
            steady = guest.pid is not None and not guest.reseating and not guest.over
            if steady and still:
                self._beside.look_anew(guest)
            threads = (*self._adrift(guest), *self._beside.adrift(guest)) if steady else ()
            asked = threads or guest.charge.cores or guest.quiet_looks % _SELDOM == 0
            found = _Found(threads, self._driver.launcher.elsewhere(guest) if steady and still and asked else "")
            if not found or self._driver.launcher.processes.is_dying(guest.pid or 0):
                self._stuck.pop(name, None)
            elif self._stuck.get(name) != found:
                self._see_to(guest, found)

    def _adrift(self, guest: RunningGuest) -> tuple[Adrift, ...]:
        placement, standing = guest.domain.placement, self._driver.launcher.processes.standing(guest.pid or 0)
        if sorted(guest.roles.vcpus) != list(range(len(placement.vcpus))):
            return ()  # a vCPU that is still to go: whoever has it resized sees to it
        return adrift(standing, guest.roles.vcpus, placement.vcpus, placement.emulator)

    def _see_to(self, guest: RunningGuest, found: _Found) -> None:
        names = {thread.tid: thread.name for thread in self._driver.launcher.processes.threads(guest.pid or 0)}
        if not names:
            return  # it has ended
        names |= self._beside.names(guest)
        told = [f"thread {each.tid} ({names.get(each.tid, 'gone')}) {each}" for each in found.threads]
        what = "; ".join([f"its process was in the cgroup {found.group}", *told] if found.group else told)
        failure = self._put_back(guest, found)
        if failure is None:
            guest.put_back += len(found.threads) or 1
            happening, what = Happening.PUT_BACK, f"{what}; put back"
        else:
            self._stuck[guest.name] = found
            happening, what = Happening.ASTRAY, f"{what}; it cannot be put back: {failure}"
        placement = guest.domain.placement
        self._tell(Notice(happening, guest.name, self._driver.now(), placement.held, why=what))
        body: dict[str, object] = {
            "guest": guest.name,
            "found": [each.describe(names.get(each.tid, "")) for each in found.threads],
            "put_back": failure is None,
        }
        if found.group:
            body["cgroup"] = found.group
        self._driver.begin(self._record(guest.name, body))

    def _put_back(self, guest: RunningGuest, found: _Found) -> OrchestratorError | None:
        """Put all threads where they belong; return why that cannot be."""
        launcher = self._driver.launcher
        try:
            for each in found.threads:
                if each.realtime:
                    launcher.processes.calm(each.tid)
                if each.expected == _SERVICE:
                    launcher.processes.pin(each.tid, _SERVICE)
            if found.group:
                launcher.gather(guest)
                return None
            try:
                launcher.move(guest, guest.domain.placement)
            except FailedError:
                launcher.gather(guest)  # another cgroup may not let it where it belongs
        except OrchestratorError as error:
            return error
        return None

    async def _record(self, name: str, body: dict[str, object]) -> None:
        try:
            await self._driver.records.intend("put back", body)
        except OrchestratorError as error:
            self._tell(Notice(Happening.ASTRAY, name, self._driver.now(), why=f"that is not in the journal: {error}"))

"""One guest at a time: started paused, proved thread by thread, moved, let run, stopped, ended.

No decision is taken here; which guest runs where and when is the engine's word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.backend_ports import BackEnds
from orchestrator.beside import back_ends_trouble, workers_of
from orchestrator.core.backends import back_ends, written_outside
from orchestrator.core.bounds import bounds
from orchestrator.core.inspection import Inspection, Look
from orchestrator.core.payloads import MappedPayload
from orchestrator.core.pins import ReservedCoreWatch, Stray, strays
from orchestrator.core.placement import Placement
from orchestrator.core.topology import Topology
from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.memory import with_payload
from orchestrator.core.xml.render import render
from orchestrator.core.xml.verdict import Kind
from orchestrator.errors import FailedError, HostError, OrchestratorError, OutcomeUnknownError, PinMismatchError
from orchestrator.group_ports import GuestGroups
from orchestrator.image_proof import overlays, prove_images
from orchestrator.inside import look_inside
from orchestrator.payload_ports import Payloads
from orchestrator.ports import GuestFiles, Hypervisor, Monitors, Processes, Thread
from orchestrator.running import RunningGuest
from orchestrator.wanted import Guest, Origin

__all__ = ["Guest", "Launcher", "Origin", "RunningGuest"]

NANOSECONDS = 1_000_000_000


_MOVES = 3
"""How often a guest's threads are pinned anew while QEMU goes on making new ones."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Acts on single guests through the ports, and proves where their threads may run.

    `bounds_memory` tells whether the kernel can be had to bound the memory of a guest's QEMU, `merges_memory` whether
    it may merge equal pages of guests, `foreign` that QEMU is run as another user, who cannot read what is ours, and
    `encloses` that QEMU is started with no files open to it but its guest's.
    `barred` says why no guest of an owner is to be launched now, by whatever way it came; empty if one may be. Each
    guest has a control group of its own if there are `groups`, and there the `disk_speed` that the policy gives it.
    """

    topology: Topology
    hypervisor: Hypervisor
    processes: Processes
    monitors: Monitors
    files: GuestFiles
    payloads: Payloads
    back_ends: BackEnds
    bounds_memory: bool = False
    merges_memory: bool = False
    foreign: bool = False
    barred: Callable[[str], str] = lambda _: ""
    encloses: bool = False
    groups: GuestGroups | None = None
    disk_speed: int | None = None

    async def launch(self, domain: Domain, origin: Origin | None = None) -> RunningGuest:
        """Check its payload, define, start paused, load its state if it has an origin, prove every thread's affinity.

        On failure nothing of it is left.

        PinMismatchError or another FailedError says what failed; OutcomeUnknownError if it could not be undone either.
        """
        name = domain.spec.name
        why = self.barred(domain.owner)
        if why:
            raise FailedError(f"{name}: not started: {why}")
        mapped = await self._payload(domain)
        if mapped is not None:
            domain = with_payload(domain, mapped)
        if origin is not None and origin.ram is not None:
            self._require_own_qemu(name, "template")
            domain = replace(domain, ram_file=origin.ram)  # which has what the payload's had become
        domain = replace(domain, bounded=self.bounds_memory, merged=self.merges_memory, enclosed=self.encloses)
        xml = render(domain)
        verdict = audit(xml.encode(), self.reserved())
        if verdict.kind is not Kind.CONFINED or verdict.cautions:
            why = "; ".join((verdict.summary, *verdict.cautions))
            raise PinMismatchError(f"{name}: not started, its XML leaves a reserved core open: {why}")
        guest = None
        try:
            outside = await self._prepare(domain, origin)
            await self.hypervisor.start_paused(xml)
            guest = await self.attach(domain)
            if self.groups is not None:
                self.gather(guest)
            if origin is not None:
                await guest.monitor.load(origin.state, skip_shared=origin.skip_shared)
            self._move_workers(guest)
            self._prove(guest)
            await prove_images(guest, outside)
            self._require_unchanged(guest)
        except BaseException as failure:
            why = back_ends_trouble(self.back_ends, domain)
            if guest is not None:
                await guest.monitor.close()
            await asyncio.shield(self._undo(domain, failure))
            if why and isinstance(failure, FailedError):
                raise FailedError(f"{name}: not started: {why}") from failure
            raise
        return guest

    async def _prepare(self, domain: Domain, origin: Origin | None) -> int:
        """Make the run directory and start the back ends; return the bytes that disks have which QEMU does not open."""
        name, saved = domain.spec.name, {} if origin is None else origin.overlays
        copies = {domain.overlay(target): path for target, path in saved.items()}
        await self.back_ends.end(domain.directory)  # of a guest of this name whose end nobody has seen
        sizes = await self.files.prepare(name, overlays(domain), domain.pins, domain.owner, copies)
        wanted = back_ends(domain)
        if wanted:
            await self.back_ends.start(domain.directory, domain.owner if domain.pinned else None, wanted)
        return sum(sizes.get(path, 0) for path in written_outside(domain))

    async def _payload(self, domain: Domain) -> MappedPayload | None:
        wish = domain.spec.payload
        if wish is None:
            return None
        if wish.digest is None:
            raise FailedError(f"{domain.spec.name}: not started, which payload {wish.reference} is was not noted")
        self._require_own_qemu(domain.spec.name, "payload")
        return await self.payloads.check(domain.owner, wish.digest, domain.spec.hugepages)

    def _require_own_qemu(self, name: str, what: str) -> None:
        """Raise HostError where QEMU could not open a file that it is to map."""
        if self.foreign:
            raise HostError(
                f"{name}: not started, the system's libvirt runs QEMU as a user of its own who may not read its {what};"
                " connect = 'embed' can have it"
            )

    def _require_unchanged(self, guest: RunningGuest) -> None:
        mapped = guest.domain.mapped
        if mapped is not None and not self.payloads.is_unchanged(mapped):
            raise FailedError(f"{guest.name}: not started, its payload was changed meanwhile: {mapped.path}")

    async def attach(self, domain: Domain) -> RunningGuest:
        """Connect to a guest whose process is there. Raises FailedError if it is not, or nobody answers."""
        name = domain.spec.name
        pid = self.processes.find(str(domain.uuid))
        if pid is None:
            raise FailedError(f"{name}: libvirt started it, but no process of it can be found in /proc")
        monitor = await self.monitors.connect(domain.monitor_socket)
        try:
            roles = await monitor.thread_roles()
        except BaseException:
            await monitor.close()
            raise
        guest = RunningGuest(
            domain=domain, pid=pid, monitor=monitor, roles=roles, watch=ReservedCoreWatch(self.reserved())
        )
        guest.workers = workers_of(self.processes, guest)
        if back_ends(domain):
            guest.back_ends = dict(self.back_ends.processes(domain.directory))
        return guest

    def seated(self, guest: RunningGuest) -> Placement | None:
        """Return where a guest's threads are pinned now; None unless each vCPU has one pool core of its own."""
        allowed = {thread.tid: thread.allowed for thread in self._threads(guest)}
        vcpus = [allowed.get(tid, frozenset()) for _, tid in sorted(guest.roles.vcpus.items())]
        others = [cores for tid, cores in allowed.items() if tid not in guest.roles.vcpus.values()]
        if not all(len(cores) == 1 for cores in vcpus) or not others:
            return None
        try:
            return Placement(
                pool=self.topology.pool,
                vcpus=tuple(core for cores in vcpus for core in cores),
                emulator=tuple(sorted(frozenset().union(*others))),
            )
        except OrchestratorError:
            return None

    def begin_to_resume(self, guest: RunningGuest, placement: Placement) -> Awaitable[None] | None:
        """Let a guest run at once, and return what `resume` is to wait for; None if only `resume` can do it.

        That is a guest that has to be moved or proved, or into which somebody looks.
        """
        if guest.still.locked() or not guest.ran or placement != guest.domain.placement:
            return None
        return guest.monitor.begin_to_resume()

    async def resume(self, guest: RunningGuest, placement: Placement, begun: Awaitable[None] | None = None) -> None:
        """Let a guest run on a placement, to which its threads are moved first if it differs from the last one.

        Its threads are read back after each move, and after the first time that it was let run. Raises PinMismatchError
        or another FailedError; the guest may run then, or not.
        """
        if placement != guest.domain.placement:
            self.move(guest, placement)
        async with guest.still:
            await (guest.monitor.resume() if begun is None else begun)
        guest.cores.update(placement.held)
        if not guest.ran:
            guest.ran = True
            self._prove(guest)

    async def suspend(self, guest: RunningGuest) -> None:
        """Stop a guest's vCPUs, and return when that is confirmed."""
        async with guest.still:
            await guest.monitor.suspend()

    async def inspect(self, guest: RunningGuest, look: Look) -> Inspection:
        """Look inside a guest; one that runs is stopped meanwhile, and a hand-over waits for that."""
        async with guest.still:
            return await look_inside(guest.monitor, guest.domain.spec.architecture, tuple(guest.roles.vcpus), look)

    async def clear(self, domain: Domain) -> None:
        """End a guest's process, if it is still there, and clear away what it leaves but its log."""
        await self.hypervisor.remove(str(domain.uuid))
        await self.back_ends.end(domain.directory)
        self.files.discard(domain.spec.name)
        if self.groups is not None:
            self.groups.release(str(domain.uuid))

    def look(self, guest: RunningGuest) -> None:
        """Read from the kernel where a guest's threads are and what they used."""
        threads = self._threads(guest)
        if threads:
            guest.watch.look(_looked_at(threads))
            guest.cpu_seconds = sum(thread.cpu_seconds for thread in threads)
        else:
            guest.pid = None

    def gather(self, guest: RunningGuest) -> None:
        """Bring a guest's process into its own control group; where it has none, into this process's, if it is there.

        Then pin its threads: each may run wherever that group may. FailedError if the kernel refuses.
        """
        if self.groups is None:
            self.processes.gather(guest.pid or 0)
        else:
            self.groups.confine(str(guest.domain.uuid), guest.pid or 0, bounds(guest.domain, self.disk_speed))
        self.move(guest, guest.domain.placement)

    def elsewhere(self, guest: RunningGuest) -> str:
        """Return the control group that a guest's process is in, if somebody has taken it out of its own."""
        if self.groups is None or guest.pid is None:
            return ""
        return self.groups.elsewhere(str(guest.domain.uuid), guest.pid)

    def reserved(self) -> frozenset[int]:
        """Return the cores that no guest may have."""
        return frozenset(cpu.id for cpu in self.topology.reserved) | {0, 1}

    def move(self, guest: RunningGuest, placement: Placement) -> None:
        """Pin every thread to where a placement wants it; one that QEMU makes meanwhile is caught the next time.

        Raises PinMismatchError if that cannot be had.
        """
        guest.domain = replace(guest.domain, placement=placement)
        cores: dict[int, set[int]] = {}
        for index, tid in guest.roles.vcpus.items():
            cores.setdefault(tid, set()).add(placement.vcpus[index])
        for _ in range(_MOVES):
            for thread in self._threads(guest):
                self.processes.pin(thread.tid, frozenset(cores.get(thread.tid, placement.emulator)))
            self._move_workers(guest)
            if not self._strays(guest):
                return
        self._prove(guest)

    def _move_workers(self, guest: RunningGuest) -> None:
        """Pin the kernel's threads for a guest to where its emulator is: nobody else does."""
        for tid in guest.workers:
            self.processes.pin(tid, frozenset(guest.domain.placement.emulator))

    def _prove(self, guest: RunningGuest) -> None:
        seen, placed = sorted(guest.roles.vcpus), len(guest.domain.placement.vcpus)
        if seen != list(range(placed)):
            raise FailedError(f"{guest.name}: QEMU has vCPUs {seen}, its placement {placed}")
        found = self._strays(guest)
        if found:
            raise PinMismatchError(f"{guest.name}: stopped, " + "; ".join(map(str, found)))

    def _strays(self, guest: RunningGuest) -> Sequence[Stray]:
        placement, threads = guest.domain.placement, self._threads(guest)
        if not {thread.tid for thread in threads}.issuperset(guest.roles.vcpus.values()) or not threads:
            raise FailedError(f"{guest.name}: its process {guest.pid} ended while it was being started")
        guest.watch.look(_looked_at(threads))
        allowed = {thread.tid: (thread.name, thread.allowed) for thread in threads}
        return strays(allowed, guest.roles.vcpus, placement.vcpus, placement.emulator)

    def _threads(self, guest: RunningGuest) -> Sequence[Thread]:
        threads = self.processes.threads(guest.pid) if guest.pid is not None else ()
        # The first look is before the first turn, or as it is taken over.
        guest.charge = guest.charge.first_look(int(sum(each.cpu_seconds for each in threads) * NANOSECONDS))
        return threads

    async def _undo(self, domain: Domain, failure: BaseException) -> None:
        try:
            await self.clear(domain)
        except OrchestratorError as error:
            why = str(failure) or "interrupted"
            raise OutcomeUnknownError(f"{why}; what is left could not be cleared away: {error}") from failure


def _looked_at(threads: Sequence[Thread]) -> list[tuple[int, str, frozenset[int], int]]:
    return [(thread.tid, thread.name, thread.allowed, thread.last_core) for thread in threads]

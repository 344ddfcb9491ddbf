"""The engine: observe, decide, act, record. It names no adapter; what it needs of the world comes through ports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.core.model import GuestSpec, disk_target
from orchestrator.core.pins import ReservedCoreWatch, strays
from orchestrator.core.placement import Placement, Refusal, place_in
from orchestrator.core.poolindex import PoolIndex
from orchestrator.core.topology import Topology
from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.render import render
from orchestrator.core.xml.verdict import Kind
from orchestrator.errors import (
    FailedError,
    HostError,
    OrchestratorError,
    OutcomeUnknownError,
    PinMismatchError,
    RefusedError,
)
from orchestrator.ports import (
    SHUT_OFF,
    DomainEvent,
    DomainEventKind,
    GuestFiles,
    Hypervisor,
    Monitors,
    Processes,
    Thread,
    ThreadRoles,
)

_UUIDS = uuid.UUID("8b7cf9e2-9c4c-4f0b-9a0a-3d3f0c1f2b6e")
_LONGEST_LINE = 4096  # bytes kept of a serial line that has not ended yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A definition to run: whose it is, its canonical JSON, the QEMU program and accelerator for it."""

    spec: GuestSpec
    specification: str
    owner: str
    emulator: str
    accelerator: Accelerator

    def placed(self, placement: Placement, directory: str) -> Domain:
        """Return the domain of this guest on these cores, with its run directory.

        The same owner's guest in the same directory has the same uuid, so its process is known again.
        """
        return Domain(
            spec=self.spec,
            placement=placement,
            accelerator=self.accelerator,
            owner=self.owner,
            specification=self.specification,
            emulator=self.emulator,
            directory=directory,
            uuid=str(uuid.uuid5(_UUIDS, f"{self.owner}:{directory}")),
        )


@dataclass(slots=True, kw_only=True)
class RunningGuest:
    """A guest that was started, and what was seen of it.

    `pid` is None once the process has gone: the kernel may give its number to another. `cpu_seconds` is what it
    has used, `log_size` how far the serial log was read, `unfinished` the last line's beginning, `last_line` the
    last whole one without what a terminal would obey. `ended` says how the guest ended, once it has, `crashed`
    whether it or its QEMU failed.
    """

    domain: Domain
    pid: int | None
    watch: ReservedCoreWatch
    cpu_seconds: float = 0.0
    heartbeats: int = 0
    last_line: str = ""
    log_size: int = 0
    unfinished: bytes = b""
    ended: str | None = None
    crashed: bool = False

    @property
    def name(self) -> str:
        """Return the guest's name."""
        return self.domain.spec.name


@dataclass(slots=True)
class Engine:
    """Starts guests on pool cores, proves where their threads run, and ends them."""

    topology: Topology
    hypervisor: Hypervisor
    processes: Processes
    monitors: Monitors
    files: GuestFiles
    guests: dict[str, RunningGuest] = field(default_factory=dict)

    async def plan(self, guests: Sequence[Guest]) -> list[Domain]:
        """Place all guests beside what runs already, or refuse all of them with every reason."""
        # A definition without a process is what a killed run left; starting a guest of that name replaces it.
        live = [domain for domain in await self.hypervisor.domains() if domain.state != SHUT_OFF]
        index = PoolIndex(
            self.topology, self.topology.pool.cores.difference(*(domain.metadata.held for domain in live))
        )
        planned: list[Domain] = []
        refusals: list[str] = []
        running, asked = {domain.name for domain in live}, set[str]()
        for guest in sorted(guests, key=lambda each: -each.spec.cores_needed):
            name = guest.spec.name
            if name in running:
                refusals.append(f"{name}: a guest of this name runs already; `orchestrator stop {name}` ends it")
                continue
            if name in asked:
                refusals.append(f"{name}: two of the definitions have this name; give one of them another")
                continue
            asked.add(name)
            outcome = place_in(index, guest.spec)
            if isinstance(outcome, Refusal):
                refusals.append(f"{name}: {outcome}")
                continue
            index.take(outcome.held)
            planned.append(guest.placed(outcome, self.files.directory(name)))
        if refusals:
            raise RefusedError("nothing was started: " + " | ".join(refusals))
        order = {guest.spec.name: index for index, guest in enumerate(guests)}
        return sorted(planned, key=lambda domain: order[domain.spec.name])

    async def start(self, domain: Domain) -> RunningGuest:
        """Define, start paused, prove every thread's affinity, continue. On failure nothing of the guest is left.

        PinMismatchError or another FailedError says what failed; OutcomeUnknownError if it could not be undone either.
        """
        name = domain.spec.name
        xml = render(domain)
        verdict = audit(xml.encode(), self._reserved())
        if verdict.kind is not Kind.CONFINED or verdict.cautions:
            why = "; ".join((verdict.summary, *verdict.cautions))
            raise PinMismatchError(f"{name}: not started, its XML leaves a reserved core open: {why}")
        try:
            await self.files.prepare(name, _overlays(domain))
            await self.hypervisor.start_paused(xml)
            guest = await self._prove_and_continue(domain)
        except BaseException as failure:
            await asyncio.shield(self._undo(domain, failure))
            raise
        self.guests[name] = guest
        return guest

    async def start_all(self, domains: Sequence[Domain]) -> None:
        """Start guests at the same time; returns when each has started, then raises the first failure, if any."""
        await all_or_first_failure([self.start(domain) for domain in domains])

    async def stop(self, guests: Iterable[RunningGuest]) -> None:
        """End guests at the same time and clear up after them; they stay in `guests`, with how they ended."""
        ending = list(guests)
        for guest in ending:
            guest.ended = guest.ended or "stopped"
        await all_or_first_failure([self._clear(guest.domain) for guest in ending])

    async def stop_all(self) -> None:
        """End every guest that this engine started."""
        await self.stop(self.guests.values())

    def look(self) -> None:
        """Read from the kernel where each running guest's threads are, and from its serial log what it said."""
        for guest in self.guests.values():
            threads = () if guest.pid is None else self.processes.threads(guest.pid)
            if threads:
                guest.watch.look(_looked_at(threads))
                guest.cpu_seconds = sum(thread.cpu_seconds for thread in threads)
            else:
                guest.pid = None
            self._read_serial(guest)

    async def follow_events(self) -> None:
        """Record how guests end that nobody here asked to; never returns."""
        async for event in self.hypervisor.events():
            self.record(event)

    def record(self, event: DomainEvent) -> None:
        """Note the end of a guest of ours."""
        guest = self.guests.get(event.name)
        if guest is not None and guest.ended is None:
            guest.ended, guest.crashed = event.detail, event.kind is DomainEventKind.CRASHED

    async def _prove_and_continue(self, domain: Domain) -> RunningGuest:
        """Compare every live thread with the placement while the guest is still stopped, and again once it runs."""
        pid = self.processes.find(str(domain.uuid))
        if pid is None:
            raise FailedError(f"{domain.spec.name}: libvirt started it, but no process of it can be found in /proc")
        monitor = await self.monitors.connect(domain.monitor_socket)
        try:
            roles = await monitor.thread_roles()
            self._prove(domain, pid, roles)
            await monitor.resume()
            threads = self._prove(domain, pid, roles)
        finally:
            await monitor.close()
        guest = RunningGuest(domain=domain, pid=pid, watch=ReservedCoreWatch(self._reserved()))
        guest.watch.look(_looked_at(threads))
        return guest

    def _prove(self, domain: Domain, pid: int, roles: ThreadRoles) -> Sequence[Thread]:
        name, placement = domain.spec.name, domain.placement
        threads = self.processes.threads(pid)
        if not {thread.tid for thread in threads}.issuperset(roles.vcpus.values()) or not threads:
            raise FailedError(f"{name}: its process {pid} ended while it was being started")
        if sorted(roles.vcpus) != list(range(len(placement.vcpus))):
            raise FailedError(f"{name}: QEMU has vCPUs {sorted(roles.vcpus)}, its placement {len(placement.vcpus)}")
        allowed = {thread.tid: (thread.name, thread.allowed) for thread in threads}
        found = strays(allowed, roles.vcpus, placement.vcpus, placement.emulator)
        if found:
            raise PinMismatchError(f"{name}: stopped, " + "; ".join(map(str, found)))
        return threads

    async def _undo(self, domain: Domain, failure: BaseException) -> None:
        try:
            await self._clear(domain)
        except OrchestratorError as error:
            why = str(failure) or "interrupted"
            raise OutcomeUnknownError(f"{why}; what is left could not be cleared away: {error}") from failure

    async def _clear(self, domain: Domain) -> None:
        await self.hypervisor.remove(str(domain.uuid))
        self.files.discard(domain.spec.name)

    def _reserved(self) -> frozenset[int]:
        return frozenset(cpu.id for cpu in self.topology.reserved) | {0, 1}

    def _read_serial(self, guest: RunningGuest) -> None:
        fresh = self.files.serial_log(guest.name, guest.log_size)
        guest.log_size += len(fresh)
        *lines, rest = (guest.unfinished + fresh).split(b"\n")
        guest.unfinished = rest[:_LONGEST_LINE]
        lines = [line for line in map(bytes.strip, lines) if line]
        guest.heartbeats += sum(line.startswith(b"heartbeat ") for line in lines)
        if lines:
            text = lines[-1][:_LONGEST_LINE].decode("utf-8", "replace")
            guest.last_line = "".join(character for character in text if character.isprintable())


async def all_or_first_failure(acts: Sequence[Awaitable[object]]) -> None:
    """Run acts at the same time to their ends, then raise the first failure among them, if any."""
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def require_pool(topology: Topology) -> None:
    """Raise HostError if this host has no core that a guest may have."""
    if not topology.pool:
        raise HostError(
            f"this host has no pool core: guests need cores beside 0 (scheduler) and 1 (service), and of its "
            f"{len(topology.cpus)} online cores all are reserved; "
            "`orchestrator lab run -- COMMAND` gives you a host with six"
        )


def _overlays(domain: Domain) -> dict[str, tuple[str, str]]:
    return {
        domain.overlay(disk_target(index)): (disk.path, disk.format)
        for index, disk in enumerate(domain.spec.disks)
        if disk.overlay
    }


def _looked_at(threads: Sequence[Thread]) -> list[tuple[int, str, frozenset[int], int]]:
    return [(thread.tid, thread.name, thread.allowed, thread.last_core) for thread in threads]

"""Core 1 in place of a pool: for the hand-over benchmark alone, on a host that has only cores 0 and 1.

No pool, placement or policy can name core 1, and that stays so: the engine is shown a host of three cores, places
guests on core 2 of it, and proves its threads there; only what goes out to libvirt and the kernel, and what comes back
from them, calls that core by its real number. So what is measured is the real path with all its proofs, and a thread
on core 0 is a stray as ever. It cannot serve for anything else: `lend` refuses any host that could have a pool, what it
returns has no other number to translate, and a test holds that only the benchmark imports this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lxml import etree

from orchestrator.core.discovery import discover
from orchestrator.core.pins import Standing
from orchestrator.core.placement import Placement
from orchestrator.core.pool import FIRST_POOL_CORE, SCHEDULER_CORE, SERVICE_CORE
from orchestrator.core.topology import Topology
from orchestrator.errors import PinMismatchError, RefusedError
from orchestrator.ports import DomainEvent, Hypervisor, LiveDomain, Processes, Thread


@dataclass(frozen=True, slots=True)
class Host:
    """What an engine is built on."""

    topology: Topology
    hypervisor: Hypervisor
    processes: Processes


def may_lend(topology: Topology) -> bool:
    """Whether this host has core 1, and no core at all that could be a guest's."""
    online = {cpu.id for cpu in topology.cpus}
    return online == {SCHEDULER_CORE, SERVICE_CORE} and not topology.offline


def lend(host: Host) -> Host:
    """Return the host as one whose core 2 is core 1. Raises RefusedError where there could be a pool."""
    if not may_lend(host.topology):
        raise RefusedError(
            "core 1 is lent only where there is no core beside 0 and 1; without --borrow-service-core it may work"
        )
    topology = discover({"cpu/online": f"{SCHEDULER_CORE}-{FIRST_POOL_CORE}"})
    return Host(topology, ChangingHypervisor(host.hypervisor, _on_service_core), _Renumbered(host.processes))


@dataclass(frozen=True, slots=True)
class ChangingHypervisor:
    """A hypervisor that is given each definition with a change made to it; all else is passed on."""

    inner: Hypervisor
    change: Callable[[str], str]

    async def start_paused(self, xml: str) -> None:
        """Start the changed domain."""
        await self.inner.start_paused(self.change(xml))

    async def remove(self, uuid: str) -> bool:
        """Pass on."""
        return await self.inner.remove(uuid)

    async def mark_paused(self, uuid: str, *, paused: bool) -> None:
        """Pass on."""
        await self.inner.mark_paused(uuid, paused=paused)

    async def mark_placed(self, uuid: str, placement: Placement) -> None:
        """Pass on."""
        await self.inner.mark_placed(uuid, placement)

    async def set_vcpus(self, uuid: str, cores: Sequence[int]) -> None:
        """Pass on."""
        await self.inner.set_vcpus(uuid, cores)

    async def domains(self) -> Sequence[LiveDomain]:
        """Pass on."""
        return await self.inner.domains()

    def events(self) -> AsyncIterator[DomainEvent]:
        """Pass on."""
        return self.inner.events()


@dataclass(frozen=True, slots=True)
class _Renumbered:
    """The kernel's view, with core 1 called 2; there is no core 2 that could be meant."""

    inner: Processes

    def find(self, uuid: str) -> int | None:
        return self.inner.find(uuid)

    def threads(self, pid: int) -> Sequence[Thread]:
        return tuple(
            replace(thread, allowed=frozenset(map(_shown, thread.allowed)), last_core=_shown(thread.last_core))
            for thread in self.inner.threads(pid)
        )

    def activity(self, pid: int) -> str:
        return self.inner.activity(pid)

    def memory(self, pid: int) -> int:
        return self.inner.memory(pid)

    def standing(self, pid: int) -> Mapping[int, Standing]:
        found = self.inner.standing(pid)
        return {tid: each._replace(allowed=frozenset(map(_shown, each.allowed))) for tid, each in found.items()}

    def workers(self, pid: int) -> Sequence[int]:
        return self.inner.workers(pid)

    def is_dying(self, pid: int) -> bool:
        return self.inner.is_dying(pid)

    def calm(self, tid: int) -> None:
        self.inner.calm(tid)

    def gather(self, pid: int) -> None:
        self.inner.gather(pid)

    def pin(self, tid: int, cores: frozenset[int]) -> None:
        _require_the_one(cores)
        self.inner.pin(tid, frozenset({SERVICE_CORE}))

    def identity(self, pid: int) -> str:
        return self.inner.identity(pid)

    def freeze(self, pid: int, uuid: str) -> None:
        self.inner.freeze(pid, uuid)

    def thaw(self, pid: int, uuid: str) -> None:
        """Pass on."""
        self.inner.thaw(pid, uuid)

    def kill(self, pid: int, uuid: str) -> None:
        self.inner.kill(pid, uuid)


def _on_service_core(xml: str) -> str:
    domain = etree.fromstring(xml.encode())
    for node in domain.iterfind(".//*[@cpuset]"):
        _require_the_one({int(node.get("cpuset"))})
        node.set("cpuset", str(SERVICE_CORE))
    return str(etree.tostring(domain, encoding="unicode"))


def _shown(core: int) -> int:
    return FIRST_POOL_CORE if core == SERVICE_CORE else core


def _require_the_one(cores: frozenset[int] | set[int]) -> None:
    if cores != {FIRST_POOL_CORE}:
        raise PinMismatchError(f"cores {sorted(cores)} of a host whose pool is core {FIRST_POOL_CORE} alone")

"""What a host's processors are and which of them guests may have: values and rules, no reading.

Lists of CPUs are ascending tuples, sizes are bytes. "Core" in names that users see is a logical
CPU, a pCPU; a physical core with its SMT siblings is one entry of `Topology.cores`. How a sysfs
tree becomes a `Topology` is told in `discovery`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE, Pool
from orchestrator.errors import HostError


class Role(StrEnum):
    """What a core is for; only those of the pool may carry guests."""

    SCHEDULER = "scheduler"
    SERVICE = "service"
    RESERVED = "reserved"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class Cpu:
    """One online logical CPU.

    `core` is the kernel's core_id, which other dies and sockets may repeat; `siblings` are the online
    CPUs that share the physical core, this one among them. `reason` says why it is not in the pool
    and is empty if it is.
    """

    id: int
    core: int
    socket: int
    die: int
    node: int
    siblings: tuple[int, ...]
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache: level from 1, type in the kernel's word, size (None: not told), CPUs that share it."""

    level: int
    type: str
    size: int | None
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One NUMA node; without CPUs if it is memory only.

    `memory` is its size in bytes, None where the kernel does not tell. `distances` pairs node numbers
    with the firmware's relative distance (10 is local), and is empty where there is none.
    """

    id: int
    cpus: tuple[int, ...]
    memory: int | None
    distances: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """One host's processors: `cpus` are the online ones, by number.

    `offline` are present but off. `isolated` and `nohz_full` are as the kernel was told at boot.
    `warnings` are sentences on what was missing, contradictory or had to be taken for granted.
    """

    cpus: tuple[Cpu, ...]
    nodes: tuple[Node, ...]
    caches: tuple[Cache, ...]
    offline: tuple[int, ...]
    isolated: tuple[int, ...]
    nohz_full: tuple[int, ...]
    warnings: tuple[str, ...]

    def cpu(self, number: int) -> Cpu:
        """Return an online CPU by its number; raises KeyError if it is not online. Growth: logarithmic."""
        place = bisect_left(self.cpus, number, key=lambda cpu: cpu.id)
        if place == len(self.cpus) or self.cpus[place].id != number:
            raise KeyError(number)
        return self.cpus[place]

    @property
    def pool(self) -> Pool:
        """The cores that guests may have, possibly none, and why others are not in it. Growth: linear."""
        reasons = dict.fromkeys(self.offline, "offline") | {cpu.id: cpu.reason for cpu in self.reserved}
        return Pool(frozenset(cpu.id for cpu in self.cpus if cpu.role is Role.POOL), reasons)

    @property
    def reserved(self) -> tuple[Cpu, ...]:
        """All online cores outside the pool, the scheduler and service cores among them. Growth: linear."""
        return tuple(cpu for cpu in self.cpus if cpu.role is not Role.POOL)

    @property
    def cores(self) -> tuple[tuple[int, ...], ...]:
        """The physical cores, each as its online CPUs. Growth: linear, beside sorting."""
        return tuple(sorted({cpu.siblings for cpu in self.cpus}))

    @property
    def smt(self) -> bool:
        """Whether any physical core has more than one online CPU. Growth: linear."""
        return any(len(cpu.siblings) > 1 for cpu in self.cpus)


def assign_roles(siblings: Mapping[int, frozenset[int]], reserved: Iterable[int]) -> dict[int, tuple[Role, str]]:
    """Return each online core's role, with the reason if it is kept from guests ("" for the pool).

    `siblings` maps every online core to the cores that share its physical core, offline ones too: a
    sibling of an offline core 0 stays reserved, since core 0 may come back. One side's word is enough.
    `reserved` is what the policy keeps besides; it cannot give anything back. If core 0 or 1 is not
    online, nobody takes its role. Growth: linear in the cores.
    """
    by_policy = frozenset(reserved)
    roles: dict[int, tuple[Role, str]] = {}
    for core, shared in siblings.items():
        heads = [h for h in (SCHEDULER_CORE, SERVICE_CORE) if h in shared or core in siblings.get(h, ())]
        if core == SCHEDULER_CORE:
            roles[core] = Role.SCHEDULER, "scheduler core"
        elif core == SERVICE_CORE:
            roles[core] = Role.SERVICE, "service core"
        elif heads:
            roles[core] = Role.RESERVED, f"SMT sibling of core {heads[0]}"
        elif core in by_policy:
            roles[core] = Role.RESERVED, "reserved by policy"
        else:
            roles[core] = Role.POOL, ""
    return roles


def describe(topology: Topology) -> dict[str, object]:
    """Return the topology as plain JSON values; sets of CPUs are ascending lists of numbers.

    ``cpus`` lists the online ones, each with ``id core socket die node siblings role`` and, outside the
    pool, ``reason``. ``reserved`` and ``pool`` part the online ones in two. Sizes are in bytes, null
    where unknown; ``distances`` maps node numbers, as text, to distances. Growth: linear.
    """
    return {
        "cpus": [_describe_cpu(cpu) for cpu in topology.cpus],
        "pool": sorted(topology.pool.cores),
        "reserved": [cpu.id for cpu in topology.reserved],
        "offline": list(topology.offline),
        "isolated": list(topology.isolated),
        "nohz_full": list(topology.nohz_full),
        "smt": topology.smt,
        "counts": {
            "cpus": len(topology.cpus),
            "cores": len(topology.cores),
            "dies": len({(cpu.socket, cpu.die) for cpu in topology.cpus}),
            "sockets": len({cpu.socket for cpu in topology.cpus}),
            "nodes": len(topology.nodes),
        },
        "nodes": [
            {
                "id": node.id,
                "cpus": list(node.cpus),
                "memory_bytes": node.memory,
                "distances": {str(other): distance for other, distance in node.distances},
            }
            for node in topology.nodes
        ],
        "caches": [
            {"level": cache.level, "type": cache.type, "size_bytes": cache.size, "cpus": list(cache.cpus)}
            for cache in topology.caches
        ],
        "warnings": list(topology.warnings),
    }


def _describe_cpu(cpu: Cpu) -> dict[str, object]:
    described: dict[str, object] = {
        "id": cpu.id,
        "core": cpu.core,
        "socket": cpu.socket,
        "die": cpu.die,
        "node": cpu.node,
        "siblings": list(cpu.siblings),
        "role": cpu.role.value,
    }
    return described | ({"reason": cpu.reason} if cpu.reason else {})


def require_pool(topology: Topology) -> None:
    """Raise HostError if this host has no core that a guest may have."""
    if not topology.pool:
        raise HostError(
            f"this host has no pool core: guests need cores beside 0 (scheduler) and 1 (service), and of its "
            f"{len(topology.cpus)} online cores all are reserved; "
            "`orchestrator lab run -- COMMAND` gives you a host with six"
        )

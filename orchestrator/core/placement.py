"""Where a guest's threads may run: a value that cannot name a core outside the pool, and the choice of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from orchestrator.core.model import EmulatorThreads, GuestSpec, NumaWish, SmtWish
from orchestrator.core.pool import Pool
from orchestrator.core.topology import Topology
from orchestrator.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The pool cores of one guest.

    `vcpus` has the pCPU of each vCPU, in vCPU order. `emulator` are the cores of QEMU's own threads and of its
    I/O threads, ascending. `held` are all cores whose locks the guest needs: those, and idle SMT siblings of
    them. `nodes` are the NUMA nodes of the cores, empty where the host has only one.

    Raises ReservedCoreError for any core that is not in `pool`, whoever builds it.
    """

    pool: Pool
    vcpus: tuple[int, ...]
    emulator: tuple[int, ...]
    held: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        everything = {*self.vcpus, *self.emulator, *self.held}
        self.pool.check(everything)
        if not self.vcpus or not self.emulator:
            raise UsageError("a placement needs a core for every vCPU and one for the emulator threads")
        if len(set(self.vcpus)) != len(self.vcpus):
            raise UsageError(f"cores {list(self.vcpus)}: two vCPUs of one guest cannot share a core")
        object.__setattr__(self, "held", tuple(sorted(everything)))


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that refused: its name, what was wanted of it and what there was."""

    rule: str
    wanted: str
    available: str

    def __str__(self) -> str:
        return f"{self.rule}: wanted {self.wanted}, available {self.available}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a guest cannot be placed: every rule that refused."""

    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


def assign(spec: GuestSpec, cores: Sequence[int], topology: Topology, held: Iterable[int] = ()) -> Placement:
    """Give a guest exactly these cores, vCPUs first; the one left over is for an isolated emulator.

    Raises UsageError if their number does not fit the definition. O(cores).
    """
    if len(cores) != spec.cores_needed:
        extra = " and one for its isolated emulator threads" if spec.cores_needed > spec.vcpus else ""
        raise UsageError(
            f"{spec.name}: {len(cores)} cores do not fit; it takes {spec.cores_needed}: "
            f"one for each of its {spec.vcpus} vCPUs{extra}"
        )
    isolated = spec.emulator is EmulatorThreads.ISOLATE
    return Placement(
        pool=topology.pool,
        vcpus=tuple(cores[: spec.vcpus]),
        emulator=tuple(cores[spec.vcpus :]) if isolated else tuple(sorted(cores)),
        held=tuple(held),
        nodes=_nodes_of(cores, topology),
    )


def place(spec: GuestSpec, free: frozenset[int], topology: Topology) -> Placement | Refusal:
    """Choose cores for a guest among the `free` ones, in whole physical cores.

    The NUMA node that fits best (least room left) is taken, then its lowest physical cores; a guest that no
    node can hold is spread in node order unless it insists on one. O(n log n) for n CPUs.
    """
    threads_used = 1 if spec.smt is SmtWish.ISOLATE else None
    physical = [
        core
        for core in _physical_cores(topology)
        if free.issuperset(core) and (spec.smt is not SmtWish.REQUIRE or len(core) > 1)
    ]
    nodes: dict[int, list[tuple[int, ...]]] = {}
    for core in physical:
        nodes.setdefault(_node_of(core[0], topology), []).append(core)
    room = {node: sum(len(core[:threads_used]) for core in cores) for node, cores in nodes.items()}
    fitting = sorted((left, node) for node, left in room.items() if left >= spec.cores_needed)
    if fitting:
        chosen = nodes[fitting[0][1]]
    elif spec.numa is NumaWish.STRICT or sum(room.values()) < spec.cores_needed:
        return _refusal(spec, free, room)
    else:
        chosen = [core for node in sorted(nodes) for core in nodes[node]]
    return _take(spec, chosen, threads_used, topology)


def _take(
    spec: GuestSpec, physical: Sequence[tuple[int, ...]], threads_used: int | None, topology: Topology
) -> Placement:
    """Use up physical cores in order until the guest has enough threads; what is left of the last stays idle."""
    used: list[int] = []
    held: list[int] = []
    for core in physical:
        if len(used) >= spec.cores_needed:
            break
        held += core
        used += islice(core, threads_used)
    return assign(spec, used[: spec.cores_needed], topology, held)


def _refusal(spec: GuestSpec, free: frozenset[int], room: dict[int, int]) -> Refusal:
    reasons = []
    if len(free) < spec.cores_needed:
        reasons.append(Reason("free pool cores", str(spec.cores_needed), str(len(free))))
    elif sum(room.values()) < spec.cores_needed:
        kind = {SmtWish.ISOLATE: "alone", SmtWish.REQUIRE: "with an SMT sibling"}.get(spec.smt, "whole")
        reasons.append(Reason(f"free physical cores, {kind}", str(spec.cores_needed), str(sum(room.values()))))
    if spec.numa is NumaWish.STRICT and max(room.values(), default=0) < spec.cores_needed:
        widest = str(max(room.values(), default=0))
        reasons.append(Reason("free cores in one NUMA node", str(spec.cores_needed), widest))
    return Refusal(tuple(reasons))


def _physical_cores(topology: Topology) -> list[tuple[int, ...]]:
    """Return the pool's physical cores as ascending tuples of their threads."""
    pool = topology.pool
    return [core for core in topology.cores if all(cpu in pool for cpu in core)]


def _node_of(cpu: int, topology: Topology) -> int:
    return topology.cpu(cpu).node


def _nodes_of(cores: Iterable[int], topology: Topology) -> tuple[int, ...]:
    if len(topology.nodes) < 2:
        return ()
    return tuple(sorted({_node_of(cpu, topology) for cpu in cores}))

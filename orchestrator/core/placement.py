"""Where a guest's threads may run: a value that cannot name a core outside the pool, and the choice of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.core.model import EmulatorThreads, GuestSpec, NumaWish, SmtWish
from orchestrator.core.pool import Pool
from orchestrator.core.poolindex import Fit, PoolIndex
from orchestrator.core.topology import Topology
from orchestrator.errors import UsageError

_KINDS = {SmtWish.PREFER: "whole", SmtWish.ISOLATE: "alone", SmtWish.REQUIRE: "with an SMT sibling"}
# Bound once: each look at an enum costs a call.
_ISOLATED, _STRICT, _ALONE = EmulatorThreads.ISOLATE, NumaWish.STRICT, SmtWish.ISOLATE


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
        everything = self.pool.check({*self.vcpus, *self.emulator, *self.held})
        if not self.vcpus or not self.emulator:
            raise UsageError("a placement needs a core for every vCPU and one for the emulator threads")
        if len(set(self.vcpus)) != len(self.vcpus):
            raise UsageError(f"cores {list(self.vcpus)}: two vCPUs of one guest cannot share a core")
        object.__setattr__(self, "held", tuple(sorted(everything)))


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that refused: its name, what was wanted of it and what there was; of which limit, if it is a quota."""

    rule: str
    wanted: str
    available: str
    limit: str | None = None

    def __str__(self) -> str:
        of = f" of {self.limit}" if self.limit is not None else ""
        return f"{self.rule}: wanted {self.wanted}, available {self.available}{of}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a guest cannot be placed: every rule that refused."""

    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFloor:
    """How many pool cores exclusive guests leave: what the policy says, and the width of the widest waiting gang.

    `kept` cores, which are for exclusive guests of others, are left beside those.
    """

    policy: int = 0
    widest_gang: int = 0
    kept: int = 0


NO_FLOOR = SharedFloor()
"""Exclusive guests may have the whole pool."""


def assign(spec: GuestSpec, cores: Sequence[int], topology: Topology, held: Iterable[int] = ()) -> Placement:
    """Give a guest exactly these cores, vCPUs first; the one left over is for an isolated emulator.

    Raises UsageError if their number does not fit the definition. Growth: the host's CPUs.
    """
    if len(cores) != spec.cores_needed:
        extra = " and one for its isolated emulator threads" if spec.cores_needed > spec.vcpus else ""
        raise UsageError(
            f"{spec.name}: {len(cores)} cores do not fit; it takes {spec.cores_needed}: "
            f"one for each of its {spec.vcpus} vCPUs{extra}"
        )
    pool = topology.pool
    pool.check(cores)
    nodes = {topology.cpu(core).node for core in cores} if len(topology.nodes) > 1 else ()
    return _placement(spec, Fit(tuple(cores), tuple(held), tuple(sorted(nodes))), pool)


def seat(spec: GuestSpec, cores: Sequence[int], topology: Topology, pool: Pool) -> Placement:
    """Spread a shared guest over the cores of its turn, ascending and enough of them; what it does not use is held.

    A guest that wants its siblings idle uses one thread of each physical core. Growth: n log n in the cores.
    """
    used = _one_of_each(cores, topology) if spec.smt is _ALONE else cores
    nodes = {topology.cpu(core).node for core in cores} if len(topology.nodes) > 1 else ()
    return _placement(spec, Fit(tuple(used[: spec.cores_needed]), tuple(cores), tuple(sorted(nodes))), pool)


def place(spec: GuestSpec, free: frozenset[int], topology: Topology) -> Placement | Refusal:
    """Choose cores for a guest among the `free` ones, as `place_in` does. Growth: the host's CPUs, beside sorting.

    Who places often keeps a `PoolIndex` and asks `place_in`.
    """
    return place_in(PoolIndex(topology, free), spec)


def place_in(index: PoolIndex, spec: GuestSpec, floor: SharedFloor = NO_FLOOR) -> Placement | Refusal:
    """Choose cores for an exclusive guest as `PoolIndex.fit` tells, and leave the floor, or say all that refuses.

    Nothing is taken: that is ``index.take(placement.held)``. Growth: that of `PoolIndex.fit`; the number of nodes
    besides for a refusal.
    """
    fit = index.fit(spec.cores_needed, spec.smt, one_node=spec.numa is _STRICT)
    if fit is None or len(index) - len(fit.held) < max(floor.policy, floor.widest_gang) + floor.kept:
        return _refusal(index, spec, floor, fit)
    return _placement(spec, fit, index.pool)


def _placement(spec: GuestSpec, fit: Fit, pool: Pool) -> Placement:
    isolated = spec.emulator is _ISOLATED
    return Placement(
        pool=pool,
        vcpus=fit.used[: spec.vcpus],
        emulator=fit.used[spec.vcpus :] if isolated else tuple(sorted(fit.used)),
        held=fit.held,
        nodes=fit.nodes,
    )


def _one_of_each(cores: Sequence[int], topology: Topology) -> list[int]:
    """Return the first thread of each physical core."""
    used: list[int] = []
    seen: set[int] = set()
    for core in cores:
        if core not in seen:
            used.append(core)
            seen.update(topology.cpu(core).siblings)
    return used


def _refusal(index: PoolIndex, spec: GuestSpec, floor: SharedFloor, fit: Fit | None) -> Refusal:
    """Return every rule that refuses. Without a fit, a guest would leave the floor at best all that it does not use."""
    wanted, free, room, widest = spec.cores_needed, len(index), index.room(spec.smt), index.widest(spec.smt)
    left = max(0, free - (wanted if fit is None else len(fit.held)))
    shared = max(0, left - floor.kept)
    rules = [("free pool cores", wanted, free)]
    if room < free:
        rules.append((f"free physical cores, {_KINDS[spec.smt]}", wanted, room))
    if spec.numa is _STRICT:
        rules.append(("free cores in one NUMA node", wanted, widest))
    rules.append(("pool cores left to those for whom they are kept", floor.kept, left))
    rules.append(("pool cores left to shared guests", floor.policy, shared))
    rules.append(("pool cores left to the widest waiting gang", floor.widest_gang, shared))
    return Refusal(tuple(Reason(rule, str(need), str(there)) for rule, need, there in rules if there < need))

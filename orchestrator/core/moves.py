"""Moves of exclusive guests while they run: to other cores, and to more or fewer vCPUs. Pure.

A guest takes the locks of its new cores beside those that it has, and gives the old ones back when it has been proved
to be on the new ones. A move stops it meanwhile, so it never runs in both places; a resize leaves it running.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import EmulatorThreads, GuestSpec, NumaWish, SmtWish
from orchestrator.core.placement import Placement, Reason, Refusal, place_in
from orchestrator.core.poolindex import PoolIndex, physical_cores
from orchestrator.core.quota import kept_for_others
from orchestrator.core.requests import MoveGuest, ResizeGuest
from orchestrator.core.snapshot import Known, Snapshot, Standing, unit_groups
from orchestrator.core.steps import Claim, Release, Reseat, Restore, Resume, Step, Suspend, Withhold

_TURNS = Reason("exclusive guest", "mode = exclusive", "shared: its turns may be anywhere in the shared pool")


def move(snapshot: Snapshot, request: MoveGuest, known: Known) -> tuple[Step, ...] | Refusal:
    """Return the steps to other cores, none if the guest is there already or there is no better place.

    Raises ReservedCoreError if a core is named that no guest may have. Growth: the host's CPUs and the guests.
    """
    if not known.exclusive:
        return Refusal((_TURNS,))
    target = _named(snapshot, known, request.cores) if request.cores else _better(snapshot, known)
    if isinstance(target, Refusal):
        return target
    reasons = tuple(_no_room(snapshot, known, target))
    if reasons:
        return Refusal(reasons)
    if _seats(target) == _seats(known.placement) and target.held == known.kept:
        return ()
    return tuple(_steps(request.guest, known, target, stop=known.standing is Standing.ACTIVE))


def resize(snapshot: Snapshot, request: ResizeGuest, known: Known) -> tuple[Step, ...] | Refusal:
    """Return the steps to so many vCPUs, none if there are as many. Growth: the host's CPUs and the guests."""
    spec, wanted = known.spec, request.vcpus
    present = len(known.placement.vcpus)
    reasons = [] if known.exclusive else [_TURNS]
    if known.exclusive and known.standing is not Standing.ACTIVE:
        reasons.append(
            Reason("running guest", "its help with a processor that comes or goes", f"it is {known.standing}")
        )
    if not spec.vcpus <= wanted <= spec.most_vcpus:
        there = (
            f"{spec.vcpus} to {spec.most_vcpus}" if spec.max_vcpus else f"{spec.vcpus}; its definition has no max_vcpus"
        )
        reasons.append(Reason("vCPUs", str(wanted), there))
    if reasons:
        return Refusal(tuple(reasons))
    target = _grown(snapshot, known, wanted) if wanted > present else _shrunk(snapshot, known, wanted)
    if isinstance(target, Refusal):
        return target
    if _seats(target) == _seats(known.placement) and target.held == known.kept:
        return ()
    reasons = list(_no_room(snapshot, known, target))
    return Refusal(tuple(reasons)) if reasons else tuple(_steps(request.guest, known, target, stop=False))


def fewer(placement: Placement, vcpus: int, spec: GuestSpec) -> Placement:
    """Return an exclusive guest's placement without its last vCPUs; all its cores stay with it.

    Growth: the cores.
    """
    shared = spec.emulator is not EmulatorThreads.ISOLATE
    used = placement.vcpus[:vcpus]
    return replace(placement, vcpus=used, emulator=tuple(sorted(used)) if shared else placement.emulator)


def _seats(placement: Placement) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return placement.vcpus, placement.emulator, placement.held


def _steps(guest: str, known: Known, target: Placement, *, stop: bool) -> Iterator[Step]:
    """Yield the way from the cores that a guest keeps to those of a placement."""
    more = tuple(sorted(set(target.held).difference(known.kept)))
    less = tuple(sorted(set(known.kept).difference(target.held)))
    if more:
        yield Step(Withhold(more), Restore(more))
        yield Step(Claim(guest, more), Release(guest, more))
    if stop:
        yield Step(Suspend(guest), Resume(guest))
    moves = len(target.vcpus) == len(known.placement.vcpus)
    yield Step(Reseat(guest, target), Reseat(guest, known.placement) if moves else None)
    if less:
        yield Step(Release(guest, less), Claim(guest, less))
        yield Step(Restore(less), Withhold(less))
    if stop:
        yield Step(Resume(guest), Suspend(guest))


def _present(known: Known, vcpus: int | None = None) -> GuestSpec:
    """Return the definition with the vCPUs that there are, or are to be."""
    return replace(known.spec, vcpus=len(known.placement.vcpus) if vcpus is None else vcpus)


def _better(snapshot: Snapshot, known: Known) -> Placement:
    """Return a place on fewer nodes or cores, or one that leaves more room in one node; else the present one."""
    spec, split, present = _present(known), snapshot.policy.cores.split_cores, known.placement
    index = PoolIndex(snapshot.topology, snapshot.shared.union(known.kept), split_cores=split)
    found = place_in(index, spec)
    if isinstance(found, Refusal):
        return present
    return min((present, found), key=lambda each: _cost(snapshot, index, each))


def _cost(snapshot: Snapshot, index: PoolIndex, placement: Placement) -> tuple[int, int, int]:
    """Return what a placement costs: nodes, cores, and how little room it leaves in the roomiest node."""
    nodes = {snapshot.topology.cpu(core).node for core in placement.held}
    index.take(placement.held)
    room = index.widest(SmtWish.PREFER)
    index.release(placement.held)
    return len(nodes), len(placement.held), -room


def _named(snapshot: Snapshot, known: Known, cores: Sequence[int]) -> Placement | Refusal:
    """Return the placement on these cores, with the siblings that go with them."""
    spec = _present(known)
    snapshot.pool.check(cores)
    units = [unit for unit in _units(snapshot, spec) if not set(unit).isdisjoint(cores)]
    alone = spec.smt is SmtWish.ISOLATE
    used = [core for unit in units for core in [core for core in unit if core in cores][: 1 if alone else None]]
    reasons = list(_unfit(snapshot, spec, units))
    needed = spec.cores_needed
    spare = [core for unit in units if set(unit).isdisjoint(used[:needed]) for core in unit]
    if len(used) < needed or spare:
        given = f"{len(used)} that it can use, {format_cpulist(cores)}"
        reasons.insert(0, Reason("cores for its threads", str(needed), given))
    return Refusal(tuple(reasons)) if reasons else _placed(snapshot, spec, used[:needed], units)


def _grown(snapshot: Snapshot, known: Known, vcpus: int) -> Placement | Refusal:
    """Return the present place and more: idle siblings of its own first, then free cores of its nodes, then others."""
    spec, topology, present = _present(known, vcpus), snapshot.topology, known.placement
    free = snapshot.shared.union(known.kept)
    alone, nodes = spec.smt is SmtWish.ISOLATE, {topology.cpu(core).node for core in present.held}
    units = _units(snapshot, spec)
    mine = [unit for unit in units if not set(unit).isdisjoint(present.held)]
    isolated = present.emulator if spec.emulator is EmulatorThreads.ISOLATE else ()
    busy = {*present.vcpus, *isolated}
    spare = [] if alone else [core for unit in mine for core in unit if core not in busy]
    others = [unit for unit in units if unit not in mine and free.issuperset(unit)]
    if spec.smt is SmtWish.REQUIRE:
        others = [unit for unit in others if len(unit) > 1]
    if spec.numa is NumaWish.STRICT:
        others = [unit for unit in others if topology.cpu(unit[0]).node in nodes]
    others.sort(key=lambda unit: (topology.cpu(unit[0]).node not in nodes, unit))
    missing = vcpus - len(present.vcpus)
    spare += [core for unit in others for core in (unit[:1] if alone else unit)]
    if len(spare) < missing:
        rule = "free cores in its NUMA node" if spec.numa is NumaWish.STRICT else "free pool cores"
        return Refusal((Reason(rule, str(missing), str(len(spare))),))
    chosen = [*present.vcpus, *spare[:missing]]
    touched = mine + [unit for unit in others if not set(unit).isdisjoint(spare[:missing])]
    return _placed(snapshot, spec, [*chosen, *isolated], touched)


def _shrunk(snapshot: Snapshot, known: Known, vcpus: int) -> Placement:
    """Return the present place without the last vCPUs, and without the cores that only those had."""
    spec, present = _present(known, vcpus), known.placement
    isolated = present.emulator if spec.emulator is EmulatorThreads.ISOLATE else ()
    used = [*present.vcpus[:vcpus], *isolated]
    return _placed(snapshot, spec, used, [unit for unit in _units(snapshot, spec) if not set(unit).isdisjoint(used)])


def _placed(snapshot: Snapshot, spec: GuestSpec, used: Sequence[int], units: Iterable[Sequence[int]]) -> Placement:
    topology = snapshot.topology
    held = tuple(sorted(core for unit in units for core in unit))
    nodes = {topology.cpu(core).node for core in held} if len(topology.nodes) > 1 else ()
    isolated = spec.emulator is EmulatorThreads.ISOLATE
    return Placement(
        pool=snapshot.pool,
        vcpus=tuple(used[: spec.vcpus]),
        emulator=tuple(used[spec.vcpus :]) if isolated else tuple(sorted(used)),
        held=held,
        nodes=tuple(sorted(nodes)),
    )


def _units(snapshot: Snapshot, spec: GuestSpec) -> list[tuple[int, ...]]:
    """Return the pool in the pieces that this guest holds: physical cores, or single ones where they may be split."""
    if snapshot.policy.cores.split_cores and spec.smt is SmtWish.PREFER:
        return list(unit_groups(snapshot.topology, split_cores=True))
    pool = snapshot.topology.pool.cores
    return [unit for unit in physical_cores(snapshot.topology) if pool.issuperset(unit)]


def _unfit(snapshot: Snapshot, spec: GuestSpec, units: Sequence[Sequence[int]]) -> Iterator[Reason]:
    """Say what the definition wants otherwise."""
    nodes = {snapshot.topology.cpu(core).node for unit in units for core in unit}
    if spec.numa is NumaWish.STRICT and len(nodes) > 1:
        yield Reason("cores in one NUMA node", "numa = strict", f"nodes {format_cpulist(nodes)}")
    lonely = [core for unit in units if len(unit) < 2 for core in unit]
    if spec.smt is SmtWish.REQUIRE and lonely:
        yield Reason("cores with an SMT sibling", "smt = require", f"none of core {format_cpulist(lonely)}")


def _no_room(snapshot: Snapshot, known: Known, target: Placement) -> Iterator[Reason]:
    """Say who has cores of a placement, and for whom too few are left while both places are this guest's."""
    more = set(target.held).difference(known.kept)
    taken = more - snapshot.shared
    if taken:
        holders = {name: set(other.kept) & taken for name, other in sorted(snapshot.guests.items())}
        named = "; ".join(f"{name} keeps {format_cpulist(cores)}" for name, cores in holders.items() if cores)
        yield Reason("free pool cores", format_cpulist(more), named)
    cores = snapshot.policy.cores
    kept = kept_for_others(cores.kept, known.owner, snapshot.guests.values())
    left, floor = max(0, len(snapshot.shared - more) - kept), cores.shared_floor
    if more and kept > len(snapshot.shared - more):
        yield Reason("pool cores left to those for whom they are kept meanwhile", str(kept), str(left))
    if more and left < floor:
        yield Reason("pool cores left to shared guests meanwhile", str(floor), str(left))
    widest = max(snapshot.gangs, default=0)
    units = snapshot.units.within(snapshot.shared - more).bit_count()
    if more and units < widest:
        what = "pool" if snapshot.units.threads == 1 else "physical"
        yield Reason(f"{what} cores left to the widest waiting gang meanwhile", str(widest), str(units))

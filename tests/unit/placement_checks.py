"""What must hold of placement, as checks that return what they find wrong: with the index, or with a broken one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from hypothesis import strategies as st

from orchestrator.core.model import NumaWish, SmtWish
from orchestrator.core.placement import NO_FLOOR, Placement, Reason, Refusal, SharedFloor, place_in
from orchestrator.core.poolindex import Fit, PoolIndex
from orchestrator.core.topology import Topology
from tests.unit.placement_oracle import Request, fewest_held, fewest_nodes, hosts, requests, scan, suitable

Place = Callable[[PoolIndex, Request, SharedFloor], Placement | Refusal]


@dataclass(frozen=True)
class Case:
    """A host, cores of it that are held for good, and what happens on it: a guest comes, or the n-th goes.

    `split` says whether physical cores may be split.
    """

    topology: Topology
    split: bool
    acts: Sequence[Request | int]
    floor: SharedFloor = NO_FLOOR
    holes: frozenset[int] = frozenset()

    @property
    def free(self) -> frozenset[int]:
        return self.topology.pool.cores - self.holes


floors = st.builds(SharedFloor, policy=st.integers(0, 6), widest_gang=st.integers(0, 6))
acts = st.lists(st.one_of(requests, requests, st.integers(0, 5)), max_size=8)
holes = st.frozensets(st.integers(2, 12), max_size=4)
cases = st.builds(Case, hosts(), st.booleans(), acts, floors, holes)
whole = st.builds(Case, hosts(), st.just(value=False), acts, st.just(NO_FLOOR), holes)
EVERY = [(count, wish, one) for count in (1, 2, 3, 5, 8) for wish in SmtWish for one in (False, True)]


def ask(index: PoolIndex, request: Request, floor: SharedFloor) -> Placement | Refusal:
    return place_in(index, request.spec, floor)


def history(case: Case, make: type[PoolIndex], put: Place = ask) -> Iterator[tuple[PoolIndex, list[Placement]]]:
    """Yield the index and the placements that live, before the first act and after each."""
    index = make(case.topology, case.free, split_cores=case.split)
    live: list[Placement] = []
    yield index, live
    for act in case.acts:
        if isinstance(act, Request):
            outcome = put(index, act, case.floor)
            if isinstance(outcome, Placement):
                index.take(outcome.held)
                live.append(outcome)
        elif live:
            index.release(live.pop(act % len(live)).held)
        yield index, live


def other_choices(case: Case, make: type[PoolIndex] = PoolIndex) -> list[str]:
    """Return where the index chooses otherwise than a scan of all that is free."""
    return [
        f"{count} {wish}: {index.fit(count, wish, one_node=one)}"
        for index, _ in history(case, make)
        for count, wish, one in EVERY
        if index.fit(count, wish, one_node=one) != scan(index, case.topology, count, wish, one)
    ]


def remembered(case: Case, make: type[PoolIndex] = PoolIndex) -> list[str]:
    """Return where the index differs from one that was built from the cores that are free now."""
    found = []
    for index, live in history(case, make):
        free = case.free.difference(*(placement.held for placement in live))
        fresh = PoolIndex(case.topology, free, split_cores=case.split)
        same = index.free == free and len(index) == len(free)
        if not same or any(index.room(w) != fresh.room(w) or index.widest(w) != fresh.widest(w) for w in SmtWish):
            found.append(f"free {sorted(index.free)}, should be {sorted(free)}")
        found += [f"{asked}" for asked in EVERY if _fit(index, *asked) != _fit(fresh, *asked)]
    return found


def _fit(index: PoolIndex, count: int, wish: SmtWish, one_node: bool) -> Fit | None:
    return index.fit(count, wish, one_node=one_node)


def shared(case: Case, make: type[PoolIndex] = PoolIndex) -> list[str]:
    """Return the cores of two guests, and the physical cores that any guest has in part or with another."""
    return [
        f"core {core} of {placement.held}"
        for _, live in history(case, make)
        for number, placement in enumerate(live)
        for core in case.topology.cores
        if not set(core).isdisjoint(placement.held)
        and not (
            set(core) <= set(placement.held)
            and all(set(core).isdisjoint(other.held) for other in live[:number] + live[number + 1 :])
        )
    ]


def shared_threads(case: Case, make: type[PoolIndex] = PoolIndex) -> list[str]:
    """Return the pairs of guests that hold one thread both."""
    return [
        f"{one.held} and {other.held}"
        for _, live in history(case, make)
        for one, other in combinations(live, 2)
        if set(one.held) & set(other.held)
    ]


def eaten_floors(case: Case, put: Place = ask) -> list[str]:
    """Return the moments at which guests were let in though the shared guests were left fewer cores than they must."""
    found, guests = [], 0
    for index, live in history(case, PoolIndex, put):
        if len(live) > guests and len(index.free) < max(case.floor.policy, case.floor.widest_gang):
            found.append(f"{len(index.free)} left of {case.floor}")
        guests = len(live)
    return found


def wrong_refusals(case: Case, put: Place = ask) -> list[str]:
    """Return the refusals that name other rules than those that refuse, with what was wanted and available."""
    found = []
    for index, _ in history(case, PoolIndex):
        for act in case.acts:
            if isinstance(act, Request):
                outcome, reasons = put(index, act, case.floor), refusing(index, case.topology, act, case.floor)
                given_reasons = set(outcome.reasons) if isinstance(outcome, Refusal) else set()
                if given_reasons != reasons:
                    found.append(f"{outcome}, should be {reasons}")
    return found


def refusing(index: PoolIndex, topology: Topology, request: Request, floor: SharedFloor) -> set[Reason]:
    """Return every rule that refuses, each looked at by itself."""
    count, wish, free = request.spec.cores_needed, request.smt, len(index.free)
    nodes = suitable(topology, index.free, wish, index.split_cores)
    room = [sum(1 if wish is SmtWish.ISOLATE else len(core) for core in cores) for cores in nodes.values()]
    one = request.numa is NumaWish.STRICT
    fit = scan(index, topology, count, wish, one)
    left = max(0, free - (count if fit is None else len(fit.held)))
    kind = {SmtWish.PREFER: "whole", SmtWish.ISOLATE: "alone", SmtWish.REQUIRE: "with an SMT sibling"}[wish]
    rules = {
        "free pool cores": (count, free),
        "pool cores left to shared guests": (floor.policy, left),
        "pool cores left to the widest waiting gang": (floor.widest_gang, left),
    }
    if sum(room) < free:
        rules[f"free physical cores, {kind}"] = (count, sum(room))
    if one:
        rules["free cores in one NUMA node"] = (count, max(room, default=0))
    return {Reason(rule, str(wanted), str(there)) for rule, (wanted, there) in rules.items() if wanted > there}


def scattered(case: Case, make: type[PoolIndex] = PoolIndex) -> list[str]:
    """Return the guests that span more nodes than they must."""
    return [
        f"{count} {wish}: {fit}"
        for index, _ in history(case, make)
        for count, wish, one in EVERY
        if (fit := index.fit(count, wish, one_node=one)) is not None
        and len(case.topology.nodes) > 1
        and len(fit.nodes) > fewest_nodes(case.topology, index.free, count, wish)
    ]


def idle_siblings(case: Case, make: type[PoolIndex] = PoolIndex) -> list[str]:
    """Return the guests that hold more of their one node than another choice of its physical cores would."""
    found = []
    for index, _ in history(case, make):
        for count, wish, _ in EVERY:
            fit = index.fit(count, wish, one_node=True)
            if fit is not None:
                node = case.topology.cpu(fit.used[0]).node
                cores = suitable(case.topology, index.free, wish, split=False)[node]
                if len(fit.held) > fewest_held(cores, count, wish):
                    found.append(f"{count} {wish}: {fit}")
    return found

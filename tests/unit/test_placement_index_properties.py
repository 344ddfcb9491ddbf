"""The index against a scan of every core, over random hosts and histories; and each check against a broken index."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from orchestrator.core.model import SmtWish
from orchestrator.core.placement import Placement, Refusal, SharedFloor, place, place_in
from orchestrator.core.poolindex import PoolIndex, _View
from orchestrator.core.topology import Topology
from tests.unit.placement_checks import (
    Case,
    cases,
    eaten_floors,
    idle_siblings,
    other_choices,
    remembered,
    scattered,
    shared,
    shared_threads,
    whole,
    wrong_refusals,
)
from tests.unit.placement_oracle import Request, hosts, requests


class Roomy(PoolIndex):
    """Takes the node with the most room, not the one with the least that is enough."""

    def __init__(self, topology: Topology, free: Iterable[int] | None = None, *, split_cores: bool = False) -> None:
        super().__init__(topology, free, split_cores=split_cores)
        self._views = [RoomyView(wish, self._nodes, widest_core(topology), split_cores) for wish in SmtWish]


class RoomyView(_View):
    def snuggest(self, count: int, seen: int) -> int | None:
        place = self.roomiest(seen)
        return place if place is not None and self.room[place] >= count else None


class Forgetful(PoolIndex):
    """Does not mend the order of the nodes after a release."""

    def release(self, cores: Iterable[int]) -> None:
        super().release(cores)
        for view in self._views:
            view.stale.clear()


class Splitting(PoolIndex):
    """Splits physical cores although nobody has allowed it."""

    def __init__(self, topology: Topology, free: Iterable[int] | None = None, *, split_cores: bool = False) -> None:
        del split_cores
        super().__init__(topology, free, split_cores=True)


class Careless(PoolIndex):
    """Does not mark the first of the cores that it takes."""

    def take(self, cores: Iterable[int]) -> None:
        super().take(sorted(cores)[1:])

    def release(self, cores: Iterable[int]) -> None:
        super().release(set(cores) - self.free)


class NodeByNode(PoolIndex):
    """Spreads a guest over nodes from the lowest on, whatever their room."""

    def __init__(self, topology: Topology, free: Iterable[int] | None = None, *, split_cores: bool = False) -> None:
        super().__init__(topology, free, split_cores=split_cores)
        self._views = [NodeByNodeView(wish, self._nodes, widest_core(topology), split_cores) for wish in SmtWish]


class NodeByNodeView(_View):
    def roomiest(self, seen: int) -> int | None:
        return next((place for place, room in enumerate(self.room) if room and not seen >> place & 1), None)


class NarrowFirst(PoolIndex):
    """Takes the narrowest physical cores first, for any wish."""

    def __init__(self, topology: Topology, free: Iterable[int] | None = None, *, split_cores: bool = False) -> None:
        super().__init__(topology, free, split_cores=split_cores)
        for view in self._views:
            view._widths = range(min(view._widths, default=1), max(view._widths, default=0) + 1)


def floorless(index: PoolIndex, request: Request, _: SharedFloor) -> Placement | Refusal:
    return place_in(index, request.spec)


def policy_only(index: PoolIndex, request: Request, floor: SharedFloor) -> Placement | Refusal:
    return place_in(index, request.spec, SharedFloor(policy=floor.policy))


def terse(index: PoolIndex, request: Request, floor: SharedFloor) -> Placement | Refusal:
    """Stop at the first rule that refuses."""
    outcome = place_in(index, request.spec, floor)
    return Refusal(outcome.reasons[:1]) if isinstance(outcome, Refusal) else outcome


def widest_core(topology: Topology) -> int:
    return max(map(len, topology.cores))


quick = settings(max_examples=40, deadline=None)


@given(cases)
@quick
def test_the_index_chooses_what_a_scan_chooses(case: Case) -> None:
    assert other_choices(case) == []


@given(cases)
@quick
def test_taking_and_releasing_lead_back_to_the_same_state(case: Case) -> None:
    assert remembered(case) == []


@given(whole)
@quick
def test_no_physical_core_has_two_owners(case: Case) -> None:
    assert shared(case) == []


@given(cases)
@quick
def test_no_core_has_two_guests_even_where_physical_cores_may_be_split(case: Case) -> None:
    assert shared_threads(case) == []


@given(cases)
@quick
def test_the_floor_stays_with_the_shared_guests(case: Case) -> None:
    assert eaten_floors(case) == []


@given(cases)
@quick
def test_a_refusal_names_every_rule_that_refuses(case: Case) -> None:
    assert wrong_refusals(case) == []


@given(whole)
@quick
def test_a_guest_spans_the_fewest_nodes(case: Case) -> None:
    assert scattered(case) == []


@given(whole)
@quick
def test_the_fewest_siblings_lie_idle(case: Case) -> None:
    assert idle_siblings(case) == []


@given(hosts(), requests)
@quick
def test_placing_among_free_cores_asks_the_index(topology: Topology, request: Request) -> None:
    free = frozenset(sorted(topology.pool.cores)[::2]) | {0, 1, 99}
    assert place(request.spec, free, topology) == place_in(PoolIndex(topology, free), request.spec)


@pytest.mark.parametrize(
    ("space", "faults"),
    [
        pytest.param(cases, lambda case: other_choices(case, Roomy), id="worst fit"),
        pytest.param(cases, lambda case: other_choices(case, NarrowFirst), id="narrow cores first"),
        pytest.param(cases, lambda case: remembered(case, Forgetful), id="order not mended"),
        pytest.param(cases, lambda case: remembered(case, Careless), id="a core not marked"),
        pytest.param(whole, lambda case: shared(case, Splitting), id="split without leave"),
        pytest.param(cases, lambda case: shared_threads(case, Careless), id="a core given twice"),
        pytest.param(cases, lambda case: eaten_floors(case, floorless), id="no floor"),
        pytest.param(cases, lambda case: eaten_floors(case, policy_only), id="no gang"),
        pytest.param(cases, lambda case: wrong_refusals(case, terse), id="first reason only"),
        pytest.param(whole, lambda case: scattered(case, NodeByNode), id="nodes in order"),
        pytest.param(whole, lambda case: idle_siblings(case, NarrowFirst), id="idle siblings"),
    ],
)
def test_each_check_finds_what_is_broken_for_it(
    space: st.SearchStrategy[Case], faults: Callable[[Case], list[str]]
) -> None:
    only_find = settings(max_examples=2000, phases=[Phase.generate], database=None, deadline=None)
    assert faults(find(space, lambda case: bool(faults(case)), settings=only_find, random=Random(1)))

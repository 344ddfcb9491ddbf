"""No value that stands for pool cores can hold core 0 or 1."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.pool import Pool
from orchestrator.errors import ReservedCoreError

POOL = Pool(frozenset({2, 3, 5}), {4: "SMT sibling of core 0", 6: "reserved by policy", 7: "offline"})


@given(st.frozensets(st.integers(-5, 40)))
@settings(deadline=None)
def test_a_pool_holds_what_it_was_given_or_is_not_built(cores: frozenset[int]) -> None:
    if min(cores, default=2) >= 2:
        assert Pool(cores).cores == cores
    else:
        with pytest.raises(ReservedCoreError) as caught:
            Pool(cores)
        assert caught.value.cores == tuple(sorted(core for core in cores if core < 2))


@pytest.mark.parametrize("core", [0, 1, False, True, 0.0, 1.0])
def test_reserved_cores_in_disguise_are_seen(core: int) -> None:
    with pytest.raises(ReservedCoreError):
        Pool(frozenset({core, 2}))
    with pytest.raises(ReservedCoreError):
        dataclasses.replace(POOL, cores=frozenset({core}))


def test_a_pool_does_not_follow_the_sets_it_was_made_of() -> None:
    cores, reasons = {2, 3}, {4: "offline"}
    pool = Pool(cores, reasons)  # type: ignore[arg-type]  # a caller without types may well pass a mutable set
    cores.add(0)
    reasons[4] = "mended"
    assert pool.cores == {2, 3}
    assert dict(pool.reasons) == {4: "offline"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        pool.cores = frozenset({0})  # type: ignore[misc]  # just what must fail


def test_check_gives_back_cores_of_the_pool() -> None:
    assert POOL.check(iter([5, 2, 2])) == {2, 5}
    assert POOL.check([]) == frozenset()
    assert [*POOL] == [2, 3, 5]
    assert len(POOL) == 3
    assert 3 in POOL
    assert 4 not in POOL


def test_a_refusal_names_each_core_with_its_reason_and_the_choice() -> None:
    with pytest.raises(ReservedCoreError) as caught:
        POOL.check([9, 0, 1, 2, 4, 6, 7])
    assert caught.value.cores == (0, 1, 4, 6, 7, 9)
    assert str(caught.value) == (
        "not for guests: core 0 (scheduler core), core 1 (service core), core 4 (SMT sibling of core 0), "
        "core 6 (reserved by policy), core 7 (offline), core 9 (absent); the pool is 2-3,5"
    )


def test_an_empty_pool_refuses_everything_and_says_that_it_is_empty() -> None:
    assert not Pool(frozenset())
    with pytest.raises(ReservedCoreError, match=r"core 2 \(absent\); this host's pool is empty$"):
        Pool(frozenset()).check([2])


@given(st.frozensets(st.integers(2, 20)), st.lists(st.integers(-3, 25)))
@settings(deadline=None)
def test_check_passes_subsets_and_nothing_else(cores: frozenset[int], wanted: list[int]) -> None:
    pool = Pool(cores)
    if cores.issuperset(wanted):
        assert pool.check(wanted) == set(wanted)
    else:
        with pytest.raises(ReservedCoreError) as caught:
            pool.check(wanted)
        assert set(caught.value.cores) == set(wanted) - cores


def test_pools_of_the_same_cores_are_equal_whatever_the_reasons() -> None:
    assert Pool(frozenset({2}), {3: "offline"}) == Pool(frozenset({2}))
    assert hash(Pool(frozenset({2}))) == hash(copy.copy(Pool(frozenset({2}))))

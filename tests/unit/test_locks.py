"""Core locks: one holder each, all of a gang's or none, fencing tokens, queues, and their value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.locks import Busy, Hold, Locks, LockState
from orchestrator.core.pool import Pool
from orchestrator.errors import ReservedCoreError, UsageError

POOL = Pool(frozenset(range(2, 10)))


def held(outcome: Hold | Busy) -> Hold:
    assert isinstance(outcome, Hold)
    return outcome


def test_a_gang_gets_all_its_locks_in_ascending_order() -> None:
    hold = held(Locks(POOL).acquire("a", [5, 3, 4], 70))
    assert hold == Hold("a", (3, 4, 5), 70, 1)


def test_a_gang_gets_nothing_if_one_lock_is_taken() -> None:
    locks = Locks(POOL)
    first = held(locks.acquire("a", [3, 6], 0))
    assert locks.acquire("b", [2, 3, 4, 6], 1) == Busy(((3, "a"), (6, "a")))
    assert [locks.hold_of(core) for core in (2, 3, 4)] == [None, first, None]


def test_a_guest_cannot_take_what_it_has() -> None:
    locks = Locks(POOL)
    locks.acquire("a", [3], 0)
    assert locks.acquire("a", [3, 4], 1) == Busy(((3, "a"),))


def test_a_guest_that_moves_holds_both_places_until_it_lets_the_old_one_go() -> None:
    locks = Locks(POOL)
    old = held(locks.acquire("a", [2, 3], 0))
    new = held(locks.acquire("a", [4, 5], 1))
    assert locks.holds("a") == (old, new)
    assert locks.release(old)
    assert locks.holds("a") == (new,)


def test_a_former_holder_is_recognised_however_late_it_acts() -> None:
    locks = Locks(POOL)
    old = held(locks.acquire("a", [3], 0))
    assert locks.release(old)
    new = held(locks.acquire("a", [3], 0))
    assert new.token > old.token
    assert not locks.is_current(old)
    assert not locks.release(old)
    assert locks.hold_of(3) == new


def test_a_core_goes_to_who_has_waited_for_it_longest() -> None:
    locks = Locks(POOL)
    hold = held(locks.acquire("a", [3, 4], 0))
    locks.wait("b", [3, 4])
    locks.wait("c", [4, 5])
    assert (locks.waiters(3), locks.waiters(4), locks.waiters(5)) == (("b",), ("b", "c"), ("c",))
    locks.release(hold)
    assert locks.acquire("c", [4, 5], 1) == Busy(((4, "b"),))
    held(locks.acquire("b", [3, 4], 2))
    assert locks.waiters(4) == ("c",)
    locks.leave("c")
    assert locks.waiters(5) == ()


def test_who_waits_anew_goes_to_the_end() -> None:
    locks = Locks(POOL)
    locks.wait("b", [3])
    locks.wait("c", [3])
    locks.wait("b", [3, 4])
    assert locks.waiters(3) == ("c", "b")


@pytest.mark.parametrize("cores", [[1], [0, 2], [10]])
def test_a_core_outside_the_pool_has_no_lock(cores: list[int]) -> None:
    locks = Locks(POOL)
    for ask in (lambda: locks.acquire("a", cores, 0), lambda: locks.wait("a", cores)):
        with pytest.raises(ReservedCoreError):
            ask()
    with pytest.raises(ReservedCoreError):
        Locks(POOL, LockState(holds=(Hold("a", tuple(cores), 0, 1),)))
    assert locks.snapshot() == LockState()


def test_a_gang_of_no_core_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one core"):
        Locks(POOL).acquire("a", [], 0)


def test_two_holds_of_one_core_cannot_be_restored() -> None:
    with pytest.raises(UsageError, match="core 4"):
        Locks(POOL, LockState(holds=(Hold("a", (3, 4), 0, 1), Hold("b", (4,), 0, 2)), last_token=2))


def test_tokens_go_on_after_a_restart() -> None:
    locks = Locks(POOL)
    locks.release(held(locks.acquire("a", [3], 0)))
    assert held(Locks(POOL, locks.snapshot()).acquire("b", [3], 1)).token == 2


@dataclass(frozen=True)
class Step:
    """One call: `cores` is None where a guest gives up what it holds."""

    guest: str
    cores: frozenset[int] | None
    waits: bool


STEPS = st.lists(
    st.builds(
        Step,
        guest=st.sampled_from("abcd"),
        cores=st.none() | st.frozensets(st.sampled_from(sorted(POOL)), min_size=1, max_size=5),
        waits=st.booleans(),
    ),
    max_size=40,
)


class Careless(Locks):
    """Grants whatever is asked."""

    def acquire(self, holder: str, cores: Iterable[int], now: int) -> Hold | Busy:
        self._by_core.clear()
        return super().acquire(holder, cores, now)


class Forgetful(Locks):
    """Counts its tokens from one again."""

    def release(self, hold: Hold) -> bool:
        self._last_token = 0
        return super().release(hold)


def faults_of(locks: Locks, steps: list[Step]) -> set[str]:
    """Take the steps beside a model of a dictionary from core to hold, and name what went wrong."""
    faults: set[str] = set()
    model: dict[int, Hold] = {}
    largest = 0
    for now, step in enumerate(steps):
        if step.cores is None:
            for hold in {hold.token: hold for hold in model.values() if hold.holder == step.guest}.values():
                locks.release(hold)
                model = {core: other for core, other in model.items() if other != hold}
        elif step.waits:
            locks.wait(step.guest, step.cores)
        elif isinstance(outcome := locks.acquire(step.guest, step.cores, now), Hold):
            faults |= {"exclusivity" for core in step.cores if core in model}
            faults |= set() if outcome.cores == tuple(sorted(step.cores)) else {"atomicity"}
            faults |= set() if outcome.token > largest else {"fencing"}
            largest = max(largest, outcome.token)
            model |= dict.fromkeys(step.cores, outcome)
        if {core: locks.hold_of(core) for core in POOL} != {core: model.get(core) for core in POOL}:
            faults.add("state")
    return faults


@given(STEPS)
def test_locks_agree_with_the_model_and_with_their_restored_selves(steps: list[Step]) -> None:
    locks = Locks(POOL)
    assert faults_of(locks, steps) == set()
    assert Locks(POOL, locks.snapshot()).snapshot() == locks.snapshot()


def test_flaws_are_noticed() -> None:
    take = [Step(guest, frozenset({3, 4}), waits=False) for guest in "ab"]
    assert "exclusivity" in faults_of(Careless(POOL), take)
    assert "fencing" in faults_of(Forgetful(POOL), [take[0], Step("a", None, waits=False), take[1]])

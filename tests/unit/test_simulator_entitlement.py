"""Who is due how much, beside an oracle that looks for the water level by halving."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.entitlement import Entitlements, divide


def level_by_halving(amount: float, claims: list[tuple[float, float]]) -> list[float]:
    """Return min(cap, weight * level) of each claim, for the level at which all together take what there is."""
    low, high = 0.0, max((cap / weight for weight, cap in claims), default=0.0)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(min(cap, weight * middle) for weight, cap in claims) <= amount:
            low = middle
        else:
            high = middle
    return [min(cap, weight * low) for weight, cap in claims]


@dataclass(frozen=True)
class Someone:
    owner: str
    weight: int
    priority: int
    need: int


WEIGHTS = {"a": 100, "b": 50, "c": 300}
PEOPLE = st.lists(
    st.builds(
        Someone,
        owner=st.sampled_from("abc"),
        weight=st.sampled_from([1, 50, 100, 300]),
        priority=st.sampled_from([0, 0, 1]),
        need=st.integers(1, 9),
    ),
    max_size=12,
)


def rates_by_halving(units: int, people: list[Someone]) -> dict[str, float]:
    rates: dict[str, float] = {}
    left = float(units)
    for priority in sorted({one.priority for one in people}, reverse=True):
        group = {f"g{place}": one for place, one in enumerate(people) if one.priority == priority}
        cap = {name: float(one.need if one.need <= units else 0) for name, one in group.items()}
        owners = sorted({one.owner for one in group.values()})
        mine = {owner: [name for name in group if group[name].owner == owner] for owner in owners}
        claims = [(float(WEIGHTS[owner]), sum(cap[name] for name in mine[owner])) for owner in owners]
        for owner, share in zip(owners, level_by_halving(left, claims), strict=True):
            parts = level_by_halving(share, [(float(group[name].weight), cap[name]) for name in mine[owner]])
            rates |= dict(zip(mine[owner], parts, strict=True))
        left = units - sum(rates.values())
    return rates


def entered(units: int, people: list[Someone]) -> Entitlements:
    entitlements = Entitlements(units)
    for owner, weight in WEIGHTS.items():
        entitlements.weigh_owner(owner, weight, 0)
    for place, one in enumerate(people):
        entitlements.enter(f"g{place}", one.owner, one.weight, one.priority, one.need, 0)
    return entitlements


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 12), PEOPLE)
def test_rates_are_those_of_an_oracle_never_more_than_a_need_and_all_of_the_pool_that_can_be_used(
    units: int, people: list[Someone]
) -> None:
    rates = entered(units, people).rates()
    assert rates == pytest.approx(rates_by_halving(units, people), abs=1e-9)
    assert all(rates[f"g{place}"] <= one.need + 1e-9 for place, one in enumerate(people))
    usable = sum(one.need for one in people if one.need <= units)
    assert sum(rates.values()) == pytest.approx(min(units, usable), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), PEOPLE, PEOPLE, st.integers(1, 1000), st.integers(1, 1000))
def test_what_is_due_is_the_integral_of_the_rates_while_others_come_and_go(
    units: int, first: list[Someone], then: list[Someone], before: int, after: int
) -> None:
    entitlements = entered(units, first)
    expected = {guest: rate * before for guest, rate in entitlements.rates().items()}
    gone = range(0, len(first), 2)
    for place in gone:
        entitlements.leave(f"g{place}", before)
    for place, one in enumerate(then):
        entitlements.enter(f"new{place}", one.owner, one.weight, one.priority, one.need, before)
    entitlements.resize(units - 1, before)
    for guest, rate in entitlements.rates().items():
        expected[guest] = expected.get(guest, 0.0) + rate * after
    assert entitlements.due(before + after) == pytest.approx(expected, abs=1e-6)


def test_an_amount_is_divided_by_weight_until_caps_are_reached() -> None:
    assert divide(6, [(100, 1), (100, 9), (300, 9)]) == [1, 1.25, 3.75]
    assert divide(20, [(100, 1), (100, 9), (300, 9)]) == [1, 9, 9]
    assert divide(0, [(1, 1), (2, 0)]) == [0, 0]


def test_owners_come_before_guests() -> None:
    entitlements = Entitlements(6)
    for number in range(9):
        entitlements.enter(f"flood-{number}", "hostile", 10_000, 0, 1, 0)
    entitlements.enter("gang", "other", 1, 0, 6, 0)
    due = entitlements.due(900)
    assert due["gang"] == 3 * 900
    assert due["flood-0"] == pytest.approx(3 * 100)


def test_a_lower_class_gets_what_the_higher_ones_cannot_use() -> None:
    entitlements = Entitlements(4)
    entitlements.enter("high", "a", 100, 5, 3, 0)
    entitlements.enter("low", "b", 100, 0, 3, 0)
    assert entitlements.rates() == {"high": 3, "low": 1}


def test_who_is_wider_than_the_pool_is_due_nothing_and_keeps_nobody_from_its_share() -> None:
    entitlements = Entitlements(3)
    entitlements.enter("wide", "a", 100, 0, 4, 0)
    entitlements.enter("narrow", "b", 100, 0, 2, 0)
    assert entitlements.rates() == {"wide": 0, "narrow": 2}
    entitlements.resize(4, 10)
    assert entitlements.rates() == {"wide": 2, "narrow": 2}


def test_who_comes_again_is_due_both_times_together() -> None:
    entitlements = Entitlements(2)
    for begin, end in ((0, 10), (50, 70)):
        entitlements.enter("guest", "a", 100, 0, 1, begin)
        entitlements.leave("guest", end)
    assert entitlements.due(100) == {"guest": 30}


def test_an_owner_can_be_weighed_anew() -> None:
    entitlements = Entitlements(4)
    entitlements.enter("one", "a", 100, 0, 4, 0)
    entitlements.enter("two", "b", 100, 0, 4, 0)
    entitlements.weigh_owner("a", 300, 10)
    assert entitlements.due(20) == {"one": 20 + 30, "two": 20 + 10}

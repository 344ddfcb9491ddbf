"""Who gets how much: between owners by weight, then between an owner's guests; and little is saved up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Guest
from tests.unit.rotation_world import MS, RULES, World, jain, singles

SECOND = 1000 * MS


@dataclass(frozen=True)
class Demand:
    """Owners who all want more than they get: each has a weight, and guests as (width, weight)."""

    cores: int
    owners: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]


def demands(widths: Sequence[int], cores: st.SearchStrategy[int]) -> st.SearchStrategy[Demand]:
    """Demands in which nobody's share is more than its guests can use at once: each width divides the next, and cores.

    Else a share can be out of reach: of three cores, guests of two can never use more than two.
    """
    weights = st.sampled_from([1, 2, 3])
    # Six guests an owner: with weights of 1 to 3 none of them is due more than half of the owner's share.
    guests = st.lists(st.tuples(st.sampled_from(widths), weights), min_size=6, max_size=6).map(tuple)
    owners = st.lists(st.tuples(weights, guests), min_size=2, max_size=4).map(tuple)
    return st.builds(Demand, cores=cores, owners=owners)


def live(demand: Demand, seconds: int, kind: type[Rotation] = Rotation) -> World:
    groups = singles(demand.cores)
    world = World(kind(RULES, groups), groups)
    for number, (weight, guests) in enumerate(demand.owners):
        world.rotation.weigh_owner(f"o{number}", weight)
        for index, (width, share) in enumerate(guests):
            world.add(Guest(id=f"{number}.{index}", owner=f"o{number}", width=width, weight=share))
    world.run(seconds * SECOND)
    return world


def unfairness(world: World, demand: Demand) -> int:
    """How far any two owners' core time by weight lie apart, in core-nanoseconds."""
    shares = [
        world.share([f"{number}.{index}" for index in range(len(guests))]) // weight
        for number, (weight, guests) in enumerate(demand.owners)
    ]
    return max(shares) - min(shares)


def index_of_guests(world: World, demand: Demand) -> float:
    """Jain's index over every guest's core time against the part of the pool that it is entitled to."""
    whole = sum(weight for weight, _ in demand.owners)
    return jain(
        [
            world.share([f"{number}.{index}"]) * whole * sum(each for _, each in guests) / (weight * share)
            for number, (weight, guests) in enumerate(demand.owners)
            for index, (_, share) in enumerate(guests)
        ]
    )


class Weightless(Rotation):
    """Takes no notice of what owners weigh."""

    def weigh_owner(self, owner: str, weight: int) -> None:
        """Do nothing."""


@settings(deadline=None, max_examples=15)
@given(demands([1], st.integers(1, 3)))
def test_owners_of_single_core_guests_are_never_more_than_two_turns_of_the_pool_apart(demand: Demand) -> None:
    world = live(demand, 20)
    assert world.faults == []
    assert unfairness(world, demand) <= 2 * demand.cores * (RULES.slice + RULES.handover)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([2, 4]).flatmap(lambda width: demands([width], st.just(4))))
def test_owners_of_gangs_of_one_width_are_never_more_than_two_turns_of_the_pool_apart(demand: Demand) -> None:
    """Of different widths they can be: what a narrow gang leaves of the pool can only be given to narrow ones."""
    world = live(demand, 20)
    assert world.faults == []
    assert unfairness(world, demand) <= 2 * demand.cores * (RULES.slice + RULES.handover)


@settings(deadline=None, max_examples=15)
@given(demands([1, 2, 4], st.just(4)))
def test_gangs_of_different_widths_keep_all_cores_busy_and_wait_within_their_bounds(demand: Demand) -> None:
    world = live(demand, 20)
    assert world.faults == []
    names = [f"{number}.{index}" for number, (_, guests) in enumerate(demand.owners) for index in range(len(guests))]
    assert all(world.share([name]) > 0 for name in names)


MIXED = Demand(
    3,
    (
        (3, ((1, 1), (2, 2), (3, 1), (1, 2), (2, 1), (1, 1))),
        (1, ((3, 1), (1, 1), (2, 1), (1, 2))),
    ),
)


def test_every_guest_gets_its_weighted_share_of_core_time() -> None:
    assert index_of_guests(live(MIXED, 120), MIXED) >= 0.999


def test_a_rotation_that_forgets_weights_is_noticed() -> None:
    world = live(MIXED, 60, Weightless)
    assert unfairness(world, MIXED) > 4 * MIXED.cores * (RULES.slice + RULES.handover)
    assert index_of_guests(world, MIXED) < 0.999


def test_a_new_weight_counts_from_then_on() -> None:
    demand = Demand(1, ((1, ((1, 1),) * 2), (1, ((1, 1),) * 2)))
    world = live(demand, 10)
    world.rotation.weigh_owner("o1", 3)
    before = world.share(["1.0", "1.1"])
    world.run(20 * SECOND)
    gained = world.share(["1.0", "1.1"]) - before
    assert abs(gained - 7.5 * SECOND) <= 2 * (RULES.slice + RULES.handover)


def alone_for_an_hour() -> World:
    groups = singles(1)
    world = World(Rotation(RULES, groups), groups)
    world.add(Guest(id="a", owner="a", width=1))
    world.run(3600 * SECOND)
    return world


def test_idle_cores_that_somebody_used_are_not_held_against_him() -> None:
    world = alone_for_an_hour()
    world.add(Guest(id="b", owner="b", width=1))
    world.run(world.now + 10 * SECOND)
    assert world.faults == []
    assert abs(world.share(["b"]) - 5 * SECOND) <= 2 * (RULES.slice + RULES.handover)


def test_who_needs_less_than_his_share_saves_little_for_later() -> None:
    # Of four cores, a's single guest can use one; b and c divide the rest. Then a wants everything.
    groups = singles(4)
    world = World(Rotation(RULES, groups), groups)
    world.add(Guest(id="a0", owner="a", width=1))
    others = [f"{owner}{index}" for owner in "bc" for index in range(5)]
    for guest in others:
        world.add(Guest(id=guest, owner=guest[0], width=1))
    world.run(60 * SECOND)
    assert world.share(["a0"]) == 60 * SECOND
    for index in range(1, 5):
        world.add(Guest(id=f"a{index}", owner="a", width=1))
    before = world.share(others)
    world.run(world.now + 30 * SECOND)
    gained = world.share(others) - before
    # Two thirds of 120 core-seconds are theirs; what a has saved is eight slices of the pool at most.
    assert 80 * SECOND - 10 * 4 * RULES.slice <= gained <= 80 * SECOND + 4 * RULES.slice
    assert world.faults == []


def test_going_away_and_coming_back_gains_nothing() -> None:
    groups = singles(1)
    world = World(Rotation(RULES, groups), groups)
    for guest in "ab":
        world.add(Guest(id=guest, owner=guest, width=1))
    world.run(10 * SECOND)
    world.block("b")
    world.run(70 * SECOND)
    before = world.share(["b"])
    world.unblock("b")
    world.run(80 * SECOND)
    assert abs(world.share(["b"]) - before - 5 * SECOND) <= 2 * (RULES.slice + RULES.handover)


def test_confirmed_time_replaces_decided_time() -> None:
    """a's turns are confirmed at half their length, as if hand-overs to it were slow: it gets twice as many."""
    rotation = Rotation(RULES, singles(1))
    ran = {"a": 0, "b": 0}
    for guest in ran:
        rotation.add(Guest(id=guest, owner="o", width=1), 0)
    now = 0
    while now < 60 * SECOND:
        for stop in rotation.tick(now).stops:
            confirmed = stop.ran // 2 if stop.guest == "a" else stop.ran
            rotation.charge(stop, confirmed, now)
            ran[stop.guest] += confirmed
        now = rotation.next_event() or 0
    assert abs(ran["a"] - ran["b"]) <= 2 * (RULES.slice + RULES.handover)

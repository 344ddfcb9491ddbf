"""What must always hold of a rotation, over random pools, guests, arrivals, departures and exclusive guests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Guest
from tests.unit import rotation_flaws as flaws
from tests.unit.rotation_world import MS, RULES, World, pairs, singles


@dataclass(frozen=True)
class Act:
    """One thing that happens `after` so many milliseconds to the guest of this number, or to the pool."""

    kind: str
    after: int
    number: int
    guest: Guest


@dataclass(frozen=True)
class Story:
    """A pool, who is there from the start, and what happens then."""

    groups: tuple[tuple[int, ...], ...]
    crowd: tuple[Guest, ...]
    acts: tuple[Act, ...]
    patience: int = 400


GUESTS = st.builds(
    Guest,
    id=st.just(""),
    owner=st.sampled_from("abc"),
    width=st.integers(1, 9),
    weight=st.sampled_from([1, 50, 100, 300]),
    priority=st.sampled_from([0, 0, 0, 1, 2]),
)
ACTS = st.builds(
    Act,
    kind=st.sampled_from(["add", "add", "add", "add", "remove", "block", "unblock", "exclusive", "shared", "weigh"]),
    after=st.sampled_from([0, 0, 0, 1, 17, 60, 105, 400]),
    number=st.integers(0, 20),
    guest=GUESTS,
)
STORIES = st.builds(
    Story,
    groups=st.one_of(st.integers(1, 8).map(singles), st.sampled_from([2, 4, 8]).map(pairs)).map(tuple),
    crowd=st.lists(GUESTS, min_size=2, max_size=12).map(tuple),
    acts=st.lists(ACTS, max_size=30).map(tuple),
    patience=st.sampled_from([0, 50, 400]),
)


def play(story: Story, kind: type[Rotation] = Rotation, prefix: str = "g") -> World:
    """Let a story happen to a rotation of this kind, and three seconds more."""
    rules = replace(RULES, patience=story.patience * MS)
    world = World(kind(rules, story.groups), story.groups, rules)
    for index, guest in enumerate(story.crowd):
        world.add(replace(guest, id=f"{prefix}{index}"))
    for index, act in enumerate(story.acts, start=len(story.crowd)):
        world.run(world.now + act.after * MS)
        _happen(world, act, f"{prefix}{index}")
        world.tick()
    world.run(world.now + 3000 * MS)
    return world


def _happen(world: World, act: Act, name: str) -> None:
    names: Sequence[str] = [guest for guest in world.guests if (guest in world.blocked) == (act.kind == "unblock")]
    if act.kind == "add":
        world.add(replace(act.guest, id=name))
    elif act.kind == "weigh":
        world.rotation.weigh_owner(act.guest.owner, act.guest.weight)
    elif act.kind in ("exclusive", "shared"):
        # An exclusive guest takes, or gives back, the cores of one unit (of all, if that is the only one).
        cores = set(world.groups[act.number % len(world.groups)])
        world.allow(world.allowed - cores if act.kind == "exclusive" else world.allowed | cores)
    elif names:
        getattr(world, act.kind)(names[act.number % len(names)])


@settings(deadline=None, max_examples=60)
@given(STORIES)
def test_every_story_ends_well(story: Story) -> None:
    assert play(story).faults == []


@settings(deadline=None, max_examples=30)
@given(STORIES)
def test_the_same_story_has_the_same_end_whatever_the_guests_are_called(story: Story) -> None:
    first, second, renamed = play(story), play(story), play(story, prefix="z")
    assert first.log == second.log
    assert repr(first.log).replace("guest='g", "guest='z") == repr(renamed.log)


CROWD = Story(
    groups=tuple(singles(4)),
    crowd=tuple(
        Guest(id="", owner=owner, width=width, weight=weight)
        for owner, width, weight in [
            ("a", 1, 100),
            ("b", 3, 100),
            ("a", 4, 300),
            ("c", 2, 50),
            ("b", 1, 100),
            ("c", 1, 100),
            ("a", 2, 100),
            ("c", 3, 100),
        ]
    ),
    acts=(Act("remove", 3000, 1, Guest(id="", owner="", width=1)),) * 7,
)


def test_a_crowd_ends_well() -> None:
    assert play(CROWD).faults == []


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (flaws.TwoOnACore, "exclusivity"),
        (flaws.HalfAGang, "gang atomicity"),
        (flaws.OneAtATime, "work conservation"),
        (flaws.StopsWithoutNeed, "work conservation"),
        (flaws.BackfillsForEver, "wait bound"),
        (flaws.WandersAbout, "stickiness"),
        (flaws.ShortTurns, "minimum run"),
    ],
)
def test_a_flaw_is_noticed(kind: type[Rotation], fault: str) -> None:
    assert any(found.startswith(fault) for found in play(CROWD, kind).faults)


def test_chance_is_noticed() -> None:
    assert play(CROWD, flaws.LeftToChance).log != play(CROWD, flaws.LeftToChance).log

"""Guests that take longer to stop than the rules have it, and less than would have them quarantined."""

from __future__ import annotations

import pytest

from orchestrator.core.orders import Happening
from orchestrator.core.plan import PauseGuest, StartGuest
from orchestrator.core.rotation import Rotation
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.sharing import Guest
from tests.unit.scheduler_flaws import CountsTurnsFromWhenTheyAreDecided
from tests.unit.scheduler_world import MS, POLICY, World, spec, world

SLICE = POLICY.rotation.slice
STOPS = [20, 105, 111, 150, 219, 221, 333, 1000, 1900]
"""Milliseconds; a turn lasts 100, and a hand-over 10 at most."""

WELL_BELOW = 1000
"""What is less than who waits was promised, whoever is in his way."""


def together(stop: int, cores: int = 1, others: int = 1, kind: type[Scheduler] = Scheduler) -> World:
    """Let one guest that is slow to stop, and to go on, share cores with others for a minute."""
    host = world(2 + cores, kind=kind)
    host.sluggish["slow"] = stop * MS
    for name in ("slow", *(f"other-{number}" for number in range(others))):
        host.ask(StartGuest(spec=spec(name), owner=name))
    host.run(60_000)
    return host


def wait(host: World, name: str) -> int:
    """The longest time that a guest stood still between two turns, in nanoseconds."""
    mine = [notice for notice in host.notices if notice.guest == name]
    ends = [notice.at for notice in mine if notice.what is Happening.TURN_ENDED]
    begins = [notice.at for notice in mine if notice.what is Happening.TURN_BEGAN][1:]
    return max(begin - end for end, begin in zip(ends, begins, strict=False))


@pytest.mark.parametrize("stop", STOPS)
def test_who_waits_for_it_is_next_and_has_whole_turns(stop: int) -> None:
    host = together(stop)
    lengths = [n.at - n.since for n in host.notices if n.guest == "other-0" and n.what is Happening.TURN_ENDED]
    assert min(lengths) >= SLICE
    assert wait(host, "other-0") <= 2 * stop * MS + SLICE + 2 * POLICY.rotation.handover
    if stop < WELL_BELOW:
        assert host.faults == []


@pytest.mark.parametrize("stop", STOPS[:-2])
def test_what_it_takes_longer_is_its_own_time(stop: int) -> None:
    host = together(stop, others=3)
    ran = {name: host.ran(name) for name in ("slow", "other-0", "other-1", "other-2")}
    assert min(ran[name] for name in ran if name != "slow") >= ran["slow"] - 2 * (stop * MS + SLICE)


@pytest.mark.parametrize("stop", STOPS)
def test_on_several_cores_nobody_is_put_off_beyond_what_he_was_told(stop: int) -> None:
    host = together(stop, cores=3, others=7)
    told = [notice for notice in host.notices if notice.what is Happening.TURN_BEGAN and notice.latest]
    assert len(told) > 100
    assert [notice for notice in told if notice.at > notice.latest + 2 * stop * MS] == []


def test_a_wait_is_told_from_its_beginning() -> None:
    host = together(333)
    begins = [n for n in host.notices if n.guest == "other-0" and n.what is Happening.TURN_BEGAN]
    ends = [n.at for n in host.notices if n.guest == "other-0" and n.what is Happening.TURN_ENDED]
    assert max(abs(turn.since - end) for turn, end in zip(begins[1:], ends, strict=False)) <= POLICY.rotation.handover


def test_who_waits_for_it_can_be_paused() -> None:
    host = together(1000)
    host.run(20_000, lambda: host.turns("other-0") != [] and host.may_run.get(2) == "slow")
    host.ask(PauseGuest("other-0"))
    before = len(host.turns("other-0"))
    host.run(5_000)
    assert len(host.turns("other-0")) == before


def test_a_turn_that_never_began_has_cost_nothing_when_its_cores_are_taken_away() -> None:
    rotation = Rotation(POLICY.rotation.rules(), [(2,), (3,)], lambda guest: guest == "late")
    for name in ("late", "other"):
        rotation.add(Guest(id=name, owner=name, width=1), 0)
    cores = {run.guest: run.cores for run in rotation.tick(0).runs}
    rotation.set_cores({2, 3}.difference(cores["late"]), 70 * MS)
    (stop,) = rotation.tick(70 * MS).stops
    assert (stop.guest, stop.ran) == ("late", 0)
    (waiting,) = rotation.waits(70 * MS)
    assert (waiting.guest, waiting.since) == ("late", 0)


def test_the_flaw_is_noticed() -> None:
    host = together(219, kind=CountsTurnsFromWhenTheyAreDecided)
    assert wait(host, "other-0") > 2 * 219 * MS + SLICE + 2 * POLICY.rotation.handover

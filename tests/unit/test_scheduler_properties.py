"""What must always hold of the scheduler, whatever is asked, confirmed late, crashes or never answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.durations import Duration
from orchestrator.core.plan import MoveGuest, PauseGuest, Request, ResizeGuest, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.policy import Policy, RotationPolicy
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.steps import Launch
from tests.unit.scheduler_flaws import ForgetsCores, NeverAsksTheLocks, Starves
from tests.unit.scheduler_world import MS, World, spec, world


@dataclass(frozen=True)
class Act:
    """One thing that happens, so many milliseconds after the one before, to the guest of this number."""

    kind: str
    after: int
    number: int
    vcpus: int
    exclusive: bool


KINDS = ["start", "start", "start", "start", "stop", "pause", "resume", "crash", "deaf", "unlucky"]
KINDS += ["move", "move", "resize", "vague", "policy", "policy"]
ACTS = st.builds(
    Act,
    kind=st.sampled_from(KINDS),
    after=st.sampled_from([0, 1, 3, 40, 113, 250]),
    number=st.integers(0, 9),
    vcpus=st.integers(1, 4),
    exclusive=st.sampled_from([False, False, True]),
)
SLICES = (20, 50, 100, 400, 2000)
POLICIES = [
    Policy(
        rotation=RotationPolicy(
            slice=Duration(slice_ * MS),
            minimum_run=Duration(min(slice_, minimum) * MS),
            handover=Duration(10 * MS),
            patience=Duration((300 if minimum < 50 else 1500) * MS),
        )
    )
    for slice_ in SLICES
    for minimum in (5, 200)
]
REQUESTS: dict[str, Callable[[str], Request]] = {"stop": StopGuest, "pause": PauseGuest, "resume": ResumeGuest}


def play(
    acts: list[Act], delays: list[int], threads: int = 1, kind: type[Scheduler] = Scheduler, *, prompt: bool = True
) -> World:
    """Let a story happen, and two seconds more; `prompt`: hand-overs take no longer than the policy says."""
    host = world(8, threads=threads, delays=[delay * MS for delay in delays], kind=kind)
    for act in acts:
        host.run(act.after)
        name = f"g{act.number}"
        if act.kind in REQUESTS and host.scheduler.knows(name):
            host.ask(REQUESTS[act.kind](name))
        elif act.kind == "move" and host.scheduler.knows(name):
            place = tuple(range(2 + act.vcpus, 8))[: act.vcpus]
            host.ask(MoveGuest(name, place if act.exclusive else ()))
        elif act.kind == "resize" and host.scheduler.knows(name):
            host.ask(ResizeGuest(name, act.vcpus))
        elif act.kind == "policy":
            host.change(POLICIES[act.number])
        elif act.kind == "start":
            host.unlucky.discard(name)
            host.ask(StartGuest(spec=spec(name, act.vcpus, exclusive=act.exclusive), owner=f"o{act.number % 3}"))
        elif act.kind == "crash":
            host.crash(name)
        elif act.kind in ("deaf", "unlucky", "vague") and not prompt:
            getattr(host, act.kind).add(name)
        host.prompt &= prompt
    host.run(2000)
    return host


def leftovers(host: World) -> list[object]:
    """What the scheduler still knows of guests some time after all of them have crashed."""
    for _ in range(2):  # who waited for the cores of a deaf guest is launched only when that one has been killed
        for guest in sorted(host.alive):
            host.crash(guest)
        host.run(10_000)
    snapshot, locks = host.scheduler.snapshot(host.now), host.scheduler.locks()
    kept = host.topology.pool.cores - snapshot.shared
    found = [snapshot.guests, snapshot.gangs, kept, host.scheduler.waits(host.now), locks.holds, locks.waiters]
    return [what for what in found if what]


@settings(deadline=None, max_examples=60)
@given(st.lists(ACTS, max_size=25), st.lists(st.integers(1, 5), min_size=1, max_size=7), st.sampled_from([1, 2]))
def test_every_story_ends_well(acts: list[Act], delays: list[int], threads: int) -> None:
    host = play(acts, delays, threads)
    assert host.faults == []


@settings(deadline=None, max_examples=40)
@given(st.lists(ACTS, max_size=25), st.lists(st.integers(0, 90), min_size=1, max_size=7))
def test_nothing_is_left_of_guests_that_are_gone_even_if_they_were_slow_or_deaf(
    acts: list[Act], delays: list[int]
) -> None:
    host = play(acts, delays, prompt=False)
    assert host.faults == []
    assert leftovers(host) == []


@settings(deadline=None, max_examples=20)
@given(st.lists(ACTS, max_size=25), st.lists(st.integers(0, 90), min_size=1, max_size=7))
def test_the_same_story_has_the_same_end(acts: list[Act], delays: list[int]) -> None:
    assert play(acts, delays, prompt=False).log == play(acts, delays, prompt=False).log


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("kind", ["crash", "failure"])
def test_a_plan_that_ends_at_any_moment_leaves_the_others_as_they_were(exclusive: bool, kind: str) -> None:
    for moment in range(12):
        host = world(6, delays=(3 * MS,))
        for number in range(3):
            host.ask(StartGuest(spec=spec(f"s{number}", 2), owner="ann"))
        host.run(300)
        host.unlucky = {"new"} if kind == "failure" else set()
        host.ask(StartGuest(spec=spec("new", 2, exclusive=exclusive), owner="bob"))
        host.run(moment)
        if kind == "crash" and host.scheduler.knows("new"):
            host.alive.add("new")
            host.crash("new")
        host.run(3000)
        snapshot = host.scheduler.snapshot(host.now)
        assert host.faults == []
        assert sorted(snapshot.guests) == ["s0", "s1", "s2"]
        assert snapshot.shared == {2, 3, 4, 5}
        assert all(len(host.turns(f"s{number}")) > 8 for number in range(3))


CROWD = [
    *(Act("start", 3, number, 1 + number % 3, number == 4) for number in range(9)),
    Act("stop", 400, 4, 1, exclusive=True),
    Act("crash", 100, 1, 1, exclusive=False),
    Act("start", 100, 4, 3, exclusive=False),
]
FLOOD = [Act("start", 17, number, 6 if number == 5 else 1, exclusive=False) for number in range(25)]
FLOOD.append(Act("stop", 15_000, 1, 1, exclusive=False))


@pytest.mark.parametrize(("story", "launches"), [(CROWD, 10), (FLOOD, 25)])
def test_a_crowd_and_a_flood_end_well(story: list[Act], launches: int) -> None:
    host = play(story, [1, 5, 3])
    assert host.faults == []
    assert sum(isinstance(order, Launch) for _, order in host.log) == launches
    assert leftovers(host) == []


@pytest.mark.parametrize(
    ("kind", "story", "fault"), [(NeverAsksTheLocks, CROWD, "one core, one guest"), (Starves, FLOOD, "wait bound")]
)
def test_a_flaw_is_noticed(kind: type[Scheduler], story: list[Act], fault: str) -> None:
    assert any(found.startswith(fault) for found in play(story, [1, 5, 3], kind=kind).faults)


def test_a_guest_that_is_not_forgotten_is_noticed() -> None:
    assert leftovers(play(CROWD, [1, 5, 3], kind=ForgetsCores)) != []

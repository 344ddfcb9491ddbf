"""What a policy wants, what there is, and the changes between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.desired import Change, Desired, Present, Setting, What, changes
from orchestrator.core.desired import settings as setting_changes
from orchestrator.core.lifecycle import State
from orchestrator.core.model import GuestSpec
from tests.unit import desired_flaws as flaws
from tests.unit.scheduler_world import spec

WEB, DB, BEAT = spec("web", 2, exclusive=True), spec("db", exclusive=True), spec("beat")
OTHER = spec("web", 3, exclusive=True)


def wanted(*specs: GuestSpec, owner: str = "ann") -> list[Desired]:
    return [Desired(spec=each, owner=owner) for each in specs]


def there(one: GuestSpec = WEB, owner: str = "ann", state: State = State.RUNNING, **said: bool) -> Present:
    return Present(spec=one, owner=owner, state=state, **{"by_policy": True, **said})


CASES = {
    "not there": (None, What.START, "it is not there"),
    "runs": (there(), None, ""),
    "waits": (there(state=State.WAITING), None, ""),
    "paused by its user": (there(state=State.PAUSED), None, ""),
    "kept for inspection": (there(state=State.CRASHED_KEPT), None, ""),
    "about to be restarted": (there(state=State.BACKING_OFF), None, ""),
    "the user's own, and just so": (there(by_policy=False), None, ""),
    "ended": (there(state=State.STOPPED), What.START, "it has ended"),
    "the user's own has ended": (there(state=State.STOPPED, by_policy=False), What.START, "it has ended"),
    "ended, and was another's by policy": (there(owner="bob", state=State.STOPPED), What.START, "it has ended"),
    "another's own has ended": (
        there(owner="bob", state=State.STOPPED, by_policy=False),
        What.BLOCKED,
        "bob's guest of this name has ended, and keeps the name until it is removed",
    ),
    "other definition": (there(OTHER), What.REPLACE, "it runs by another definition"),
    "other definition, the user's own": (
        there(OTHER, by_policy=False),
        What.BLOCKED,
        "ann runs another guest of this name, which no policy run has started",
    ),
    "other owner": (there(owner="bob"), What.REPLACE, "it is bob's"),
    "another's own": (
        there(owner="bob", by_policy=False),
        What.BLOCKED,
        "bob runs another guest of this name, which no policy run has started",
    ),
    "half started": (there(state=State.PAUSED, interrupted=True), What.REPLACE, "a start of it was interrupted"),
    "half started by its user": (there(state=State.PAUSED, interrupted=True, by_policy=False), None, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_guest_that_is_wanted(case: str) -> None:
    found, what, why = CASES[case]
    expected = () if what is None else (Change(what, "web", "ann", why),)
    assert changes(wanted(WEB), [] if found is None else [found]) == expected


@pytest.mark.parametrize(
    ("found", "ends"),
    [
        (there(), True),
        (there(state=State.PAUSED), True),
        (there(state=State.CRASHED_KEPT), True),
        (there(by_policy=False), False),
        (there(state=State.STOPPED), False),
        (there(state=State.STOPPING), False),
    ],
)
def test_a_guest_that_is_listed_no_longer_ends_if_a_policy_run_has_started_it(found: Present, ends: bool) -> None:
    assert [(each.what, each.guest) for each in changes([], [found])] == ([(What.STOP, "web")] if ends else [])


def test_what_ends_makes_room_first_and_the_exclusive_and_the_wide_choose_first() -> None:
    present = [there(spec("old")), there(spec("db", 3, exclusive=True))]
    done = [str(each).partition(":")[0] for each in changes(wanted(BEAT, DB, WEB), present)]
    assert done == ["stop old of ann", "replace db of ann", "start web of ann", "start beat of ann"]


def test_without_a_scheduler_no_shared_guest_is_started_and_it_is_said_why() -> None:
    found = changes(wanted(BEAT, WEB), [there(spec("old"))], rotates=False)
    assert [each.what for each in found] == [What.STOP, What.START, What.UNSCHEDULED]
    assert found[-1].why.startswith("it is shared, and no scheduler runs that gives it turns; ")
    assert changes(wanted(BEAT), [there(BEAT, state=State.WAITING)], rotates=False) == ()


def a_spec(name: str, vcpus: int, exclusive: bool) -> GuestSpec:
    return spec(name, vcpus, exclusive=exclusive)


def a_wish(one: GuestSpec, owner: str) -> Desired:
    return Desired(spec=one, owner=owner)


def a_guest(one: GuestSpec, owner: str, state: State, by_policy: bool) -> Present:
    return Present(spec=one, owner=owner, state=state, by_policy=by_policy)


SPECS = st.builds(a_spec, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([1, 2]), st.booleans())
OWNERS = st.sampled_from(["ann", "bob"])
DESIRED = st.lists(st.builds(a_wish, SPECS, OWNERS), unique_by=lambda one: one.spec.name)
PRESENT = st.lists(
    st.builds(a_guest, SPECS, OWNERS, st.sampled_from(State), st.booleans()), unique_by=lambda one: one.spec.name
)

Compare = Callable[[Sequence[Desired], Sequence[Present]], Sequence[Change]]


def check_it_comes_to_rest(desired: list[Desired], present: list[Present], compare: Compare = changes) -> None:
    """Once all changes have been made, nothing is left to do but what is blocked, and what is wanted runs."""
    world, wishes = {one.spec.name: one for one in present}, {one.spec.name: one for one in desired}
    for each in compare(desired, present):
        if each.what is What.STOP:
            world[each.guest] = replace(world[each.guest], state=State.STOPPED)
        elif each.what is not What.BLOCKED:
            wish = wishes[each.guest]
            world[each.guest] = Present(spec=wish.spec, owner=wish.owner, state=State.RUNNING, by_policy=True)
    left = compare(desired, list(world.values()))
    assert {each.what for each in left} <= {What.BLOCKED}
    blocked = {each.guest for each in left}
    runs = {(name, one.spec, one.owner) for name, one in world.items() if one.state is not State.STOPPED}
    assert {(name, one.spec, one.owner) for name, one in wishes.items() if name not in blocked} <= runs
    kept = {name for name, one in world.items() if one.by_policy and one.state not in (State.STOPPED, State.STOPPING)}
    assert kept <= wishes.keys()


def check_users_own_guests_are_left_alone(
    desired: list[Desired], present: list[Present], compare: Compare = changes
) -> None:
    own = {one.spec.name for one in present if not one.by_policy and one.state is not State.STOPPED}
    assert own.isdisjoint(each.guest for each in compare(desired, present) if each.what is not What.BLOCKED)


CHECKS = [check_it_comes_to_rest, check_users_own_guests_are_left_alone]


@pytest.mark.parametrize("check", CHECKS)
@settings(deadline=None, max_examples=60)
@given(desired=DESIRED, present=PRESENT)
def test_what_always_holds(check: Callable[..., None], desired: list[Desired], present: list[Present]) -> None:
    check(desired, present)


CROWD = [there(), there(DB, by_policy=False), there(spec("old")), there(BEAT, state=State.STOPPED)]
WISHES = [*wanted(OTHER, spec("db", 4, exclusive=True), BEAT)]


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        (flaws.only_what_is_missing, check_it_comes_to_rest),
        (flaws.never_stops, check_it_comes_to_rest),
        (flaws.takes_everything_for_its_own, check_users_own_guests_are_left_alone),
    ],
)
def test_each_flaw_is_found(flaw: Compare, check: Callable[..., None]) -> None:
    check(WISHES, CROWD)
    with pytest.raises(AssertionError):
        check(WISHES, CROWD, flaw)


def test_values_that_differ_are_told_by_their_keys() -> None:
    before = {"cores": {"floor": 0, "gone": ""}, "same": 1, "list": ["a"], "rows": [{"name": "x"}]}
    after = {"cores": {"floor": 2}, "same": 1, "list": ["a", "b"], "rows": [{"name": "y"}, {"name": "z"}]}
    found = setting_changes(before, after)
    assert [str(each) for each in found] == [
        "set cores.floor: 0 -> 2",
        "set cores.gone: (empty) -> (not set)",
        "set list: [a] -> [a, b]",
        "set rows[0].name: x -> y",
        "set rows[1].name: (not set) -> z",
    ]
    assert found[0] == Setting("cores.floor", 0, 2)
    assert found[0].describe() == {"key": "cores.floor", "before": 0, "after": 2}
    assert setting_changes(after, after) == ()

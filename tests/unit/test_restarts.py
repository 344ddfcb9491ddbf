"""When a guest in trouble is restarted, when it is given up, and what counts as a reboot loop and as silence."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.durations import Duration
from orchestrator.core.model import Boot, RestartRules
from orchestrator.core.restarts import (
    MOST_REBOOTS,
    REBOOT_WINDOW,
    GiveUp,
    Reboots,
    Restart,
    Restarts,
    Silence,
)
from tests.golden.cases import KERNEL, PAYLOAD, domain
from tests.unit import restarts_flaws as flaws

S = 10**9
RULES = RestartRules()


def rules(backoff: int, more: int, limit: int, window: int) -> RestartRules:
    return RestartRules(backoff=Duration(backoff), most=Duration(backoff + more), limit=limit, window=Duration(window))


ALL_RULES = st.builds(
    rules, st.integers(1, 20), st.integers(0, 200), st.integers(1, 6), st.integers(1, 10**4) | st.just(10**6)
)
UPTIMES = st.lists(st.integers(0, 40) | st.integers(0, 2 * 10**4), min_size=1, max_size=25)
"""How long a guest is up after each start, until it fails; after a `GiveUp` its user starts it again."""


def story(policy: Restarts, uptimes: list[int]) -> list[tuple[int, Restart | GiveUp]]:
    """Let a guest fail again and again; return when, and what followed."""
    now, history = 0, tuple[int, ...]()
    found: list[tuple[int, Restart | GiveUp]] = []
    for uptime in uptimes:
        now += uptime
        outcome = policy.after_failure(history, now)
        found.append((now, outcome))
        if isinstance(outcome, Restart):
            now, history = outcome.at, outcome.history
    return found


def test_the_delays_of_a_guest_that_fails_at_once_until_it_is_given_up() -> None:
    found = story(Restarts(RULES), [0] * 6)
    assert [outcome.at - at for at, outcome in found[:5] if isinstance(outcome, Restart)] == [
        1 * S,
        2 * S,
        4 * S,
        8 * S,
        16 * S,
    ]
    assert found[5][1] == GiveUp("restarted 5 times within 10 min, which is all that its definition allows")


def test_the_longest_delay_and_a_limit_of_one() -> None:
    assert Restarts(RULES).delay(10**9) == 60 * S
    once = Restarts(RestartRules(limit=1))
    assert [type(outcome) for _, outcome in story(once, [0, 0, 600 * S])] == [Restart, GiveUp, Restart]
    assert "restarted once within 10 min" in str(story(once, [0, 0])[1][1])


def check_doubling(policy: Restarts, uptimes: list[int]) -> None:
    """Within a window each delay is twice the one before, or the longest."""
    found = story(policy, uptimes)
    for (at, one), (then, other) in pairwise(found):
        if isinstance(one, Restart) and isinstance(other, Restart) and then - one.history[0] < policy.rules.window:
            assert other.at - then == min(2 * (one.at - at), policy.rules.most)


def check_limit(policy: Restarts, uptimes: list[int]) -> None:
    """No window holds more restarts than the limit, nor does what is remembered."""
    restarts = [outcome for _, outcome in story(policy, uptimes) if isinstance(outcome, Restart)]
    moments = [restart.at for restart in restarts]
    for first, beyond in zip(moments, moments[policy.rules.limit :], strict=False):
        assert beyond - first >= policy.rules.window
    assert all(len(restart.history) <= policy.rules.limit for restart in restarts)


def check_patience(policy: Restarts, uptimes: list[int]) -> None:
    """A guest is given up only with all its restarts within one window; after a quiet one it is as good as new."""
    last = -policy.rules.window
    moments: list[int] = []
    for at, outcome in story(policy, uptimes):
        if isinstance(outcome, GiveUp):
            assert len([moment for moment in moments if at - moment < policy.rules.window]) == policy.rules.limit
        else:
            if at - last >= policy.rules.window:
                assert outcome == Restart(at + policy.rules.backoff, (at + policy.rules.backoff,))
            last = outcome.at
            moments.append(last)


CHECKS = (check_doubling, check_limit, check_patience)


@settings(deadline=None, max_examples=100)
@given(ALL_RULES, UPTIMES)
def test_delays_double_the_limit_holds_and_quiet_time_forgives(rules: RestartRules, uptimes: list[int]) -> None:
    for check in CHECKS:
        check(Restarts(rules), uptimes)


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        (flaws.NeverWaitsLonger, check_doubling),
        (flaws.WaitsWithoutEnd, check_doubling),
        (flaws.NeverGivesUp, check_limit),
        (flaws.NeverForgives, check_patience),
    ],
)
def test_each_flaw_is_found(flaw: type[Restarts], check: Callable[[Restarts, list[int]], None]) -> None:
    policy = flaw(rules(10, 30, 5, 1000))
    check(Restarts(policy.rules), [0] * 9 + [2000, 0])
    with pytest.raises(AssertionError):
        check(policy, [0] * 9 + [2000, 0])


# Reboots.


def rebooting(boot: Boot, moments: list[int]) -> Reboots:
    count = Reboots.of(domain(boot=boot).spec)
    for moment in moments:
        count = count.after(moment)
    return count


def test_six_reboots_within_ten_minutes_are_a_loop_and_five_are_not() -> None:
    assert not rebooting(KERNEL, [0] * MOST_REBOOTS).is_loop
    assert rebooting(KERNEL, [0] * (MOST_REBOOTS + 1)).is_loop
    apart = REBOOT_WINDOW // MOST_REBOOTS
    assert not rebooting(KERNEL, [apart * number for number in range(100)]).is_loop
    assert rebooting(KERNEL, [(apart - 1) * number for number in range(100)]).is_loop


def test_a_payload_never_reboots_on_purpose() -> None:
    assert not rebooting(PAYLOAD, []).is_loop
    assert rebooting(PAYLOAD, [0]).is_loop


def test_what_is_remembered_of_reboots_does_not_grow() -> None:
    assert len(rebooting(KERNEL, [0] * 1000).at) == MOST_REBOOTS + 1


# Silence.


def test_a_guest_is_silent_by_the_time_it_has_run_not_by_the_time_it_waited() -> None:
    silence = Silence(30).begins(0).ends(20).begins(1000)
    assert silence.due == 1010
    assert not silence.is_too_long(1009)
    assert silence.is_too_long(1010)
    assert not silence.ends(1010).is_too_long(5000)  # no turn, no trouble


def test_a_line_on_the_serial_port_breaks_the_silence_in_a_turn_and_between_two() -> None:
    assert Silence(30).begins(0).heard(29).due == 59
    assert Silence(30).begins(0).ends(29).heard(500).begins(1000).due == 1030


def test_who_need_not_speak_is_never_silent() -> None:
    assert Silence(None).begins(0).due is None
    assert not Silence(None).begins(0).is_too_long(10**18)


def test_a_turn_that_is_told_twice_counts_once() -> None:
    assert Silence(30).begins(0).begins(10).due == 30
    assert Silence(30).begins(0).ends(10).ends(20) == Silence(30, ran=10)

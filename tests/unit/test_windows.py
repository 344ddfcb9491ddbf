"""What holds when: windows, reservations, and what becomes of those that a change leaves where they do not belong."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.agenda import Change
from orchestrator.core.policy import Policy
from orchestrator.core.times import Cron, Moment
from orchestrator.core.windows import Kind, calendar, change_between, effective
from orchestrator.policy_file import parse_policy

TEXT = """
[cores]
shared_floor = 1
[cores.kept]
ann = 1
[[window]]
name = "night"
cron = "0 22 * * *"
duration = "8 h"
change = "drain"
[window.set.cores]
shared_floor = 0
[window.set.user.ann]
priority = 3
[[window]]
name = "party"
at = "2026-03-06 23:00"
duration = "2 h"
[window.set.cores]
shared_floor = 4
[[reservation]]
name = "lesson"
owner = "ann"
cores = 2
cron = "0 9 * * 1-5"
duration = "90 min"
notice = "30 min"
"""
FRIDAY = datetime(2026, 3, 6)


@pytest.fixture(name="policy", scope="module")
def made() -> Policy:
    return parse_policy(TEXT.encode(), "p.toml")


def at(policy: Policy, hour: float) -> tuple[int, dict[str, int], int]:
    found = effective(policy, FRIDAY + timedelta(hours=hour)).policy
    return found.cores.shared_floor, dict(found.cores.kept), found.priority("ann")


@pytest.mark.parametrize(
    ("hour", "floor", "kept", "priority"),
    [
        (5.99, 0, 1, 3),  # since yesterday
        (6, 1, 1, 0),
        (8.49, 1, 1, 0),
        (8.5, 1, 3, 0),  # noticed
        (9, 1, 3, 0),
        (10.49, 1, 3, 0),
        (10.5, 1, 1, 0),
        (22, 0, 1, 3),
        (23, 4, 1, 3),  # both are open; the later one in the file has its way
        (25, 0, 1, 3),
        (24 + 9, 1, 1, 0),  # no lesson on Saturday
    ],
)
def test_what_holds_at_a_time(policy: Policy, hour: float, floor: int, kept: int, priority: int) -> None:
    assert at(policy, hour) == (floor, {"ann": kept}, priority)


def test_it_is_told_when_that_changes(policy: Policy) -> None:
    moments, now = [], FRIDAY
    for _ in range(8):
        until = effective(policy, now).until
        assert until is not None
        now = until
        moments.append((now - FRIDAY) / timedelta(hours=1))
    assert moments == [6, 8.5, 9, 10.5, 22, 23, 25, 30]
    assert effective(Policy(), FRIDAY).until is None
    assert effective(Policy(), FRIDAY).policy == Policy()


def test_what_becomes_of_running_guests_is_what_the_change_says(policy: Policy) -> None:
    def between(one: float, other: float) -> Change:
        times = (effective(policy, FRIDAY + timedelta(hours=hour)) for hour in (one, other))
        return change_between(policy, *times)

    assert between(5, 7) is Change.DRAIN
    assert between(22.5, 23) is Change.MOVE
    assert between(8, 8.5) is Change.LEAVE, "a notice moves nobody"
    assert between(8.5, 9) is Change.LEAVE
    assert between(7, 8) is Change.LEAVE


def test_the_calendar_has_what_is_on_and_what_comes(policy: Policy) -> None:
    week = calendar(policy, FRIDAY, FRIDAY + timedelta(days=7))
    assert [occasion.begin for occasion in week] == sorted(occasion.begin for occasion in week)
    names = [occasion.name for occasion in week]
    assert (names.count("night"), names.count("party"), names.count("lesson")) == (8, 1, 5)
    assert week[0] == (Kind.WINDOW, "night", FRIDAY - timedelta(hours=2), FRIDAY + timedelta(hours=6))
    every_minute = parse_policy(TEXT.replace("0 22 * * *", "* * * * *").encode(), "p.toml")
    assert len(calendar(every_minute, FRIDAY, FRIDAY + timedelta(days=7))) < 2100


def test_a_window_that_comes_again_before_it_is_over_stays_open() -> None:
    often = parse_policy(
        b'[[window]]\nname = "w"\ncron = "*/10 * * * *"\nduration = "15 min"\n[window.set.cores]\nshared_floor = 3\n',
        "p.toml",
    )
    for minute in range(0, 60, 3):
        assert effective(often, FRIDAY + timedelta(minutes=minute)).policy.cores.shared_floor == 3


def test_cron_is_read_as_crontab_has_it() -> None:
    assert Cron.parse(" 0  9 * jan-MAR mon ") == "0 9 * jan-MAR mon"
    weekly = Cron.parse("0 9 * * MON")
    assert weekly.last(datetime(2026, 3, 9, 9)) == datetime(2026, 3, 9, 9), "the moment itself is one"
    assert weekly.last(datetime(2026, 3, 9, 8, 59, 59)) == datetime(2026, 3, 2, 9)
    assert next(weekly.after(datetime(2026, 3, 9, 9))) == datetime(2026, 3, 16, 9)
    assert Moment.parse("2026-12-24 18:00").when == datetime(2026, 12, 24, 18)
    for wrong in ("0 9 * *", "61 * * * *", "0 0 30 2 *", "x"):
        with pytest.raises(ValueError, match=r"is no cron expression|never comes"):
            Cron.parse(wrong)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 59), st.integers(0, 23), st.integers(1, 40 * 60), st.integers(0, 3 * 24 * 60), st.integers(1, 300)
)
def test_nothing_changes_before_it_is_told_to(minute: int, hour: int, length: int, start: int, step: int) -> None:
    text = f'[[window]]\nname = "w"\ncron = "{minute} {hour} * * *"\nduration = "{length} min"\n'
    policy = parse_policy(f"{text}[window.set.cores]\nshared_floor = 3\n".encode(), "p.toml")
    now = FRIDAY + timedelta(minutes=start)
    first = effective(policy, now)
    assert first.until is not None
    later = min(now + timedelta(minutes=step), first.until - timedelta(seconds=1))
    assert effective(policy, max(now, later)).policy == first.policy
    open_since = [now - timedelta(minutes=back) for back in range(length)]
    expected = any((moment.hour, moment.minute) == (hour, minute) for moment in open_since)
    assert (first.policy.cores.shared_floor == 3) is expected

"""The account of time: it goes on over restarts, and no clock that is set grants or takes a budget twice."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.account import CLOCK, LEAST_DAY, Account, Moment, TimeUsed
from tests.unit.quota_world import DAY, HOUR, NOON, SECOND, moment

WINDOW = HOUR


def account(wall: int = NOON) -> Account:
    return Account(WINDOW, moment(0, wall))


def used(one: Account, now: int, owner: str = "ann") -> TimeUsed:
    return one.spent(now).get(owner, TimeUsed())


def test_core_time_is_cores_times_the_time_they_are_had() -> None:
    mine = account()
    mine.runs("ann", "a", 2, 0)
    mine.runs("ann", "b", 1, 10 * SECOND)
    mine.stands("a", 20 * SECOND)
    assert used(mine, 30 * SECOND) == TimeUsed(60 * SECOND, 60 * SECOND, 0)
    assert mine.rate() == {"ann": 1}


def test_what_has_left_the_window_counts_no_more_and_a_day_does() -> None:
    mine = account()
    mine.runs("ann", "a", 1, 0)
    mine.stands("a", 600 * SECOND)
    assert used(mine, HOUR).in_window == 600 * SECOND
    assert used(mine, HOUR + 300 * SECOND).in_window == pytest.approx(300 * SECOND, abs=60 * SECOND)
    assert used(mine, HOUR + 660 * SECOND) == TimeUsed(today=600 * SECOND)


def test_starts_count_for_an_hour() -> None:
    mine = account()
    for minute in (0, 10, 50):
        mine.started("ann", f"g{minute}", minute * 60 * SECOND)
    assert used(mine, HOUR - 1).starts == 3
    assert used(mine, HOUR).starts == 2


def passes(one: Account, now: int, wall: int) -> bool:
    return one.passes(moment(now, wall))


def test_a_new_day_gives_a_new_budget_at_midnight() -> None:
    mine = account(NOON)
    mine.runs("ann", "a", 1, 0)
    assert not passes(mine, 12 * HOUR - 1, NOON + 12 * HOUR - 1)
    assert used(mine, 12 * HOUR - 1).today == 12 * HOUR - 1
    assert passes(mine, 12 * HOUR, NOON + 12 * HOUR)
    assert used(mine, 12 * HOUR).today == 0
    assert used(mine, 13 * HOUR).today == HOUR
    assert not passes(mine, 13 * HOUR, NOON + 13 * HOUR)


def test_a_step_of_an_hour_over_midnight_and_back_begins_one_day() -> None:
    mine = account(NOON)
    at_2330 = 11 * HOUR + HOUR // 2
    assert passes(mine, at_2330, NOON + at_2330 + HOUR)  # set forward to 00:30
    assert not passes(mine, at_2330 + 1, NOON + at_2330 + 1)  # and back
    assert not passes(mine, 12 * HOUR, NOON + 12 * HOUR)  # midnight comes again
    assert passes(mine, 36 * HOUR, NOON + 36 * HOUR)  # the next one is a day later


def test_a_step_back_after_midnight_begins_no_second_day() -> None:
    mine = account(NOON)
    midnight = 12 * HOUR
    assert passes(mine, midnight + 1, NOON + midnight + 1)
    assert not passes(mine, midnight + 2, NOON + midnight + 2 - HOUR)
    assert not passes(mine, midnight + HOUR + 2, NOON + midnight + 2)
    assert passes(mine, midnight + 24 * HOUR, NOON + midnight + 24 * HOUR)


def test_a_clock_that_was_years_ahead_takes_no_budget_away_for_longer_than_a_day() -> None:
    mine = account(NOON)
    years = 3650 * DAY
    assert passes(mine, 12 * HOUR, NOON + 12 * HOUR + years)
    moments = [12 * HOUR + hour * HOUR for hour in range(1, 60)]
    begun = [now for now in moments if passes(mine, now, NOON + now)]
    assert [later - earlier <= DAY for earlier, later in pairwise([12 * HOUR, *begun])] == [True] * len(begun)
    assert len(begun) == 2


def restarted(one: Account, now: int, after: Moment, kept: dict[str, str] | None = None) -> Account:
    kept = one.dump(now) if kept is None else kept
    return Account(WINDOW, after, kept)


def test_a_restart_within_a_boot_goes_on_by_the_monotonic_clock_whatever_the_wall_clock_says() -> None:
    mine = account()
    mine.started("ann", "a", 0)
    mine.runs("ann", "a", 2, 0)
    again = restarted(mine, 10 * SECOND, moment(15 * SECOND, NOON - 5 * DAY))
    assert used(again, 15 * SECOND) == TimeUsed(20 * SECOND, 20 * SECOND, 1)
    again.found("ann", "a", 2, 15 * SECOND)
    assert used(again, 15 * SECOND).today == 30 * SECOND  # it has run meanwhile
    assert again.age("a", 15 * SECOND) == 15 * SECOND


def test_after_a_reboot_the_wall_clock_tells_how_long_it_took_and_nothing_if_it_went_back() -> None:
    mine = account()
    mine.started("ann", "a", 0)
    mine.runs("ann", "a", 1, 0)
    mine.forget("a", 60 * SECOND)
    kept = mine.dump(60 * SECOND)
    later = Account(WINDOW, moment(SECOND, NOON + 2 * HOUR, "another"), kept)
    assert used(later, SECOND) == TimeUsed(today=60 * SECOND)
    back = Account(WINDOW, moment(SECOND, NOON - 9 * HOUR, "another"), kept)
    assert used(back, SECOND) == TimeUsed(60 * SECOND, 60 * SECOND, 1)


def test_a_day_that_has_begun_while_nobody_counted_has_a_new_budget() -> None:
    mine = account()
    mine.runs("ann", "a", 1, 0)
    again = restarted(mine, HOUR, moment(20 * HOUR, NOON + 20 * HOUR))
    again.found("ann", "a", 0, 20 * HOUR)
    assert used(again, 20 * HOUR).today == 0


def test_only_what_has_changed_is_dumped_again_and_who_is_forgotten_is_told() -> None:
    mine = account()
    mine.started("ann", "a", 0)
    mine.started("ben", "b", 0)
    assert set(mine.dump(0)) == {CLOCK, "ann", "ben"}
    mine.started("ben", "c", SECOND)
    assert set(mine.dump(SECOND)) == {CLOCK, "ben"}
    mine.spent(2 * HOUR)
    assert {key: text for key, text in mine.dump(2 * HOUR).items() if key != CLOCK} == {"ann": "", "ben": ""}


@pytest.mark.parametrize("saved", ["", "{}", "[1]", "null", '{"at": "x"}'])
def test_what_is_no_account_is_told(saved: str) -> None:
    with pytest.raises(ValueError, match="it is no account"):
        Account(WINDOW, moment(0, NOON), {CLOCK: saved})
    good = account().dump(0)
    with pytest.raises(ValueError, match="it is no account"):
        Account(WINDOW, moment(0, NOON), {**good, "ann": json.dumps({"day": 1})})


STEPS = st.lists(
    st.tuples(
        st.integers(1, 6 * HOUR // SECOND).map(lambda seconds: seconds * SECOND),  # how much later
        st.sampled_from([0, 0, 0, HOUR, -HOUR, 3 * HOUR, -3 * HOUR]),  # by how much the wall clock is set
        st.booleans(),  # whether the scheduler starts anew
        st.sampled_from(["run", "stand"]),
    ),
    max_size=40,
)


class ByDate(Account):
    """Broken: it trusts the wall clock's date."""

    def passes(self, moment: Moment) -> bool:
        began = moment.day != self._date
        if began:
            self.settle(moment.monotonic)
            self._date, self._day_began = moment.day, moment.monotonic + self._offset
            self._day += 1
        return began


def budgets(kind: type[Account], steps: list[tuple[int, int, bool, str]]) -> list[str]:
    """Live through the steps; return what is wrong with the days that began, and with what was charged."""
    now, shift = 0, NOON
    mine = kind(WINDOW, moment(now, now + shift))
    mine.started("ann", "a", now)
    days, charged, running = [-(NOON % DAY)], 0, False
    wrong: list[str] = []
    kept: dict[str, str] = {}
    for passed, step, anew, act in steps:
        before, now, shift = now, now + passed, shift + step
        charged += passed if running else 0
        if mine.passes(moment(now, now + shift)):
            days.append(now)
            charged = 0
        if used(mine, now).today != charged:
            wrong.append(f"{used(mine, now).today} charged instead of {charged} at {now}")
        if anew:
            kept |= mine.dump(now)
            mine = kind(WINDOW, moment(now, now + shift), kept)
            mine.found("ann", "a", int(running), now)
        if act == "run":
            mine.runs("ann", "a", 1, now)
        else:
            mine.stands("a", now)
        running = act == "run"
        assert now > before
    wrong += [
        f"two budgets within {later - earlier}" for earlier, later in pairwise(days) if later - earlier < LEAST_DAY
    ]
    return wrong


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_budgets_come_once_a_day_and_all_that_is_run_is_charged_over_restarts_and_clock_steps(
    steps: list[tuple[int, int, bool, str]],
) -> None:
    assert budgets(Account, steps) == []


def test_an_account_that_trusts_the_date_grants_a_budget_twice() -> None:
    over_midnight = (
        (12 * HOUR - 1800 * SECOND, 0, False, "run"),
        (SECOND, HOUR, False, "run"),
        (SECOND, -HOUR, False, "run"),
    )
    assert any("two budgets" in line for line in budgets(ByDate, list(over_midnight)))
    assert budgets(Account, list(over_midnight)) == []

"""Durations and spreads of them, in files and on the command line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.duration import parse_duration
from orchestrator.core.durations import LONGEST, Duration, Spread, about
from orchestrator.errors import UsageError

MS, S = 10**6, 10**9
UNITS = {"ns": 1, "us": 10**3, "ms": MS, "s": S, "m": 60 * S, "min": 60 * S, "h": 3600 * S, "d": 86_400 * S}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0 s", 0),
        ("100 ms", 100 * MS),
        ("1.5 s", 1_500 * MS),
        (" 10min ", 600 * S),
        ("2 H", 7200 * S),
        ("50 us", 50_000),
        ("1 d", 86_400 * S),
        ("0.001 us", 1),
        ("36500 d", LONGEST),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, nanoseconds: int) -> None:
    assert Duration.parse(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "10", "ms", "10 mss", "-1 s", "1e3 s", "1,5 s", "1 000 s", "٣ s", "1 s 2 ms"])
def test_what_is_no_duration_is_told_what_is(text: str) -> None:
    expected = f"{text!r} is not a duration; write a number and a unit, like '100 ms' or '10 min'"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        Duration.parse(text)


def test_a_part_of_a_nanosecond_and_more_than_a_hundred_years_are_no_durations() -> None:
    with pytest.raises(ValueError, match=r"^'0\.5 ns' is not a whole number of nanoseconds$"):
        Duration.parse("0.5 ns")
    with pytest.raises(ValueError, match=r"^'36500\.1 d' is too long; 36500 d is the longest$"):
        Duration.parse("36500.1 d")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 s"), (999, "999 ns"), (1_500 * MS, "1500 ms"), (90 * S, "90 s"), (120 * S, "2 min"), (86_400 * S, "1 d")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(nanoseconds: int, text: str) -> None:
    duration = Duration(nanoseconds)
    assert (str(duration), repr(duration), f"{duration}") == (text, text, text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 s"),
        (999, "999 ns"),
        (1_234, "1.23 us"),
        (20 * MS, "20 ms"),
        (999_960_000, "1000 ms"),
        (12_345 * MS, "12.3 s"),
        (100 * S, "1.67 min"),
        (9_000 * S, "2.5 h"),
        (10**6 * S, "11.6 d"),
        (10**8 * S, "1157 d"),
    ],
)
def test_a_length_of_time_is_shown_with_three_digits(nanoseconds: int, text: str) -> None:
    assert about(nanoseconds) == text


@settings(deadline=None)
@given(st.integers(0, 10**4), st.sampled_from(list(UNITS)))
def test_a_duration_that_was_written_is_read_back(count: int, unit: str) -> None:
    assert Duration.parse(f"{count} {unit}") == count * UNITS[unit]
    assert Duration.parse(str(Duration(count * UNITS[unit]))) == count * UNITS[unit]


@pytest.mark.parametrize(("text", "least", "most"), [("2 ms", 2, 2), ("1 ms to 3 ms", 1, 3), ("0 s to 0.004 s", 0, 4)])
def test_a_spread_is_one_duration_or_two(text: str, least: int, most: int) -> None:
    spread = Spread.parse(text)
    assert (spread.least, spread.most) == (least * MS, most * MS)
    assert Spread.parse(str(spread)) == spread


@pytest.mark.parametrize("text", ["", "1 ms to ", "1 to 3 ms", "1 ms - 3 ms", "1 ms to 2 ms to 3 ms"])
def test_a_spread_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number and a unit"):
        Spread.parse(text)


def test_a_spread_begins_with_the_shorter_duration() -> None:
    with pytest.raises(ValueError, match=r"^'3 ms to 1 ms' is no span; write the shorter duration first$"):
        Spread.parse("3 ms to 1 ms")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), (" 500ms ", 0.5), ("2 min", 120)]
)
def test_on_the_command_line_a_bare_number_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-3", "x", "3x", "9" * 40])
def test_what_lasts_no_time_is_refused_on_the_command_line(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration; write a number with its unit, like 30s, 5m or 1h"):
        parse_duration(text)

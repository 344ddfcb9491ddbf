"""The kernel's two notations for sets of CPUs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.cpulist import MAX_CPU, format_cpulist, parse_cpulist, parse_cpumask
from orchestrator.errors import UsageError

cpu_sets = st.frozensets(st.integers(0, 300) | st.integers(0, MAX_CPU), max_size=60)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []),
        ("\n", []),
        ("0", [0]),
        ("0-3,8,10-11\n", [0, 1, 2, 3, 8, 10, 11]),
        ("3,1,1-2", [1, 2, 3]),
        ("0 2\t5", [0, 2, 5]),
        ("0-7:2/4", [0, 1, 4, 5]),
        ("0-9:1/4", [0, 4, 8]),
        ("10-12:5/5", [10, 11, 12]),
        ("1,2,10-20,100-200:2/25", [1, 2, *range(10, 21), 100, 101, 125, 126, 150, 151, 175, 176, 200]),
        ("007", [7]),
        (f"{MAX_CPU}", [MAX_CPU]),
    ],
)
def test_lists_are_read_as_the_kernel_writes_and_takes_them(text: str, cpus: list[int]) -> None:
    assert parse_cpulist(text) == frozenset(cpus)


@pytest.mark.parametrize(
    "text",
    [
        *("a", "-1", "0-", "0--3", "3-1", "^3", "0x3", "1_0", "+1", "1.5", "٣", "all", "N", "(null)"),
        *("0-3:0/4", "0-3:5/4", "0-3:2", "0:1/2", "65536", "0-65536", "0-9999999999", "9" * 5000),
    ],
)
def test_what_is_no_list_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^CPU list: .{10,140}$"):
        parse_cpulist(text)


@pytest.mark.parametrize(
    ("cpus", "text"),
    [([], ""), ([5], "5"), ([3, 2, 1, 0, 8], "0-3,8"), ([0, 1], "0-1"), ([0, 2, 4, 4], "0,2,4")],
)
def test_lists_are_written_as_the_kernel_writes_them(cpus: list[int], text: str) -> None:
    assert format_cpulist(cpus) == text


@given(cpu_sets)
@settings(deadline=None)
def test_a_written_list_reads_back(cpus: frozenset[int]) -> None:
    assert parse_cpulist(format_cpulist(cpus)) == cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []),
        ("0", []),
        ("00000000,00000003\n", [0, 1]),
        ("3", [0, 1]),
        ("F,00000001", [0, 32, 33, 34, 35]),
        ("1,00000000,80000000", [31, 64]),
        ("00000000000000010000000000000002", [1, 64]),
    ],
)
def test_masks_are_read_with_the_highest_word_first(text: str, cpus: list[int]) -> None:
    assert parse_cpumask(text) == frozenset(cpus)


@pytest.mark.parametrize("text", ["g", "0x3", "1,,2", ",1", "1,", "1,123456789", "-1", "1 1", "f" * 20000])
def test_what_is_no_mask_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^CPU mask: .{10,140}$"):
        parse_cpumask(text)


@given(cpu_sets)
@settings(deadline=None)
def test_a_mask_has_the_bits_that_it_was_made_of(cpus: frozenset[int]) -> None:
    number = sum(1 << cpu for cpu in cpus)
    words = [f"{number >> shift & 0xFFFFFFFF:08x}" for shift in range(0, number.bit_length() + 1, 32)]
    assert parse_cpumask(",".join(reversed(words))) == cpus

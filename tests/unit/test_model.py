"""Sizes with their units, and the names and numbers that follow from a definition."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import GIB, MIB, EmulatorThreads, Size, disk_target
from tests.golden.cases import domain


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0 B", 0),
        ("64 MiB", 64 * 2**20),
        (" 2GiB ", 2 * 2**30),
        ("1.5 gib", 3 * 2**29),
        ("1 TiB", 2**40),
        ("4 KB", 4000),
        ("1 MB", 10**6),
        ("0.5 GB", 5 * 10**8),
        ("2 TB", 2 * 10**12),
        ("8 KiB", 8192),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, count: int) -> None:
    assert Size.parse(text) == count


@pytest.mark.parametrize(
    "text", ["", "64", "MiB", "64 MiBs", "-1 MiB", "1e3 MiB", "1,5 GiB", "0x10 B", "1 000 B", "٣ MiB", "1.1234567 GiB"]
)
def test_what_is_no_size_is_told_what_is(text: str) -> None:
    expected = f"{text!r} is not a size; write a number and a unit, like '64 MiB' or '2 GiB'"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        Size.parse(text)


def test_a_part_of_a_byte_is_no_size() -> None:
    with pytest.raises(ValueError, match=r"^'0\.3 B' is not a whole number of bytes$"):
        Size.parse("0.3 B")


@pytest.mark.parametrize("noise", ["x" * 10**6, "0.3" + " " * 10**6 + "B"])
def test_a_message_does_not_repeat_a_text_without_end(noise: str) -> None:
    with pytest.raises(ValueError, match="is not a") as caught:
        Size.parse(noise)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (Size(0), "0 B"),
        (Size(1023), "1023 B"),
        (Size(1536), "1536 B"),
        (Size(3 * 1024), "3 KiB"),
        (Size(64 * MIB), "64 MiB"),
        (Size(1008 * GIB), "1008 GiB"),
        (Size(1024 * GIB), "1 TiB"),
        (Size(1025 * GIB), "1025 GiB"),
    ],
)
def test_a_size_is_written_in_its_largest_whole_unit(size: Size, text: str) -> None:
    assert (str(size), repr(size), f"{size}") == (text, text, text)


@settings(deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([1, 2**10, 2**20, 2**30, 2**40]))
def test_a_size_that_was_written_is_read_back(count: int, unit: int) -> None:
    assert Size.parse(str(Size(count * unit))) == count * unit


def test_an_isolated_emulator_takes_one_core_more() -> None:
    spec = domain(vcpus=3).spec
    assert (spec.cores_needed, replace(spec, emulator=EmulatorThreads.ISOLATE).cores_needed) == (3, 4)


def test_disks_are_named_in_order() -> None:
    assert [disk_target(index) for index in (0, 1, 25)] == ["vda", "vdb", "vdz"]

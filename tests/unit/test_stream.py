"""Where QEMU's stream tells the address of a window: found by the block's name and its length, or not at all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.stream import without_window

NAME = b"0000:00:02.0/orchestrator-window"
SIZE = (64 << 20).to_bytes(8, "big")
ADDRESS = 0xF8000000.to_bytes(8, "big")
RAM = b"\x10orchestrator-ram" + SIZE + bytes(8)


def block(name: bytes = NAME) -> bytes:
    return bytes([len(name)]) + name + SIZE


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_address_alone_becomes_0(before: bytes, after: bytes) -> None:
    head = before + block() + ADDRESS + RAM + after
    assert without_window(head) == before + block() + bytes(8) + RAM + after


def test_what_looks_like_a_path_before_it_is_not_taken_for_one() -> None:
    head = b"\xffabc/00" + block() + ADDRESS
    assert without_window(head) == b"\xffabc/00" + block() + bytes(8)


def test_what_is_no_block_is_left_alone() -> None:
    assert without_window(RAM) is None
    assert without_window(block()[:-8]) is None
    assert without_window(block()) is None, "cut off before the address"
    wrong_length = bytes([len(NAME) + 1]) + block()[1:]
    assert without_window(wrong_length + ADDRESS) is None
    assert without_window(b"\x13orchestrator-window" + SIZE + ADDRESS) is None, "of no PCI device"

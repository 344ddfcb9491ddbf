"""The end mark: every byte of output comes out, the exit code with it, however the stream is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lab.stream import EndMark

MARK = b"\x01abab"
# Pieces that look like the beginnings of the mark are what could go wrong.
outputs = (
    st.lists(st.sampled_from([b"", b"\x01", b"\x01a", b"\x01ab", b"\x01aba", b"ab", b"7\n", b"\x00\xff"]))
    .map(b"".join)
    .filter(lambda output: MARK not in output + MARK[:-1])
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at `places`, counted modulo its length."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(outputs, st.integers(0, 255), st.lists(st.integers(0, 10_000)), st.binary(max_size=9))
def test_output_and_code_survive_any_cut(output: bytes, code: int, places: list[int], late: bytes) -> None:
    end = EndMark(MARK)
    whole = output + MARK + b"%d\n" % code
    assert b"".join(end.feed(piece) for piece in cut(whole, places)) == output
    assert end.code == code
    assert end.feed(late) == b"", "what others write after the command's end is not its output"


@given(outputs, st.lists(st.integers(0, 10_000)))
def test_without_an_end_nothing_is_lost(output: bytes, places: list[int]) -> None:
    end = EndMark(MARK)
    assert b"".join(end.feed(piece) for piece in cut(output, places)) + end.rest() == output
    assert end.code is None


@given(outputs)
def test_only_a_possible_beginning_of_the_mark_is_held_back(output: bytes) -> None:
    end = EndMark(MARK)
    held = len(output) - len(end.feed(output))
    assert held == 0 or MARK.startswith(output[-held:])


def test_a_mark_that_stops_short_comes_out_in_the_end() -> None:
    end = EndMark(MARK)
    assert end.feed(b"x" + MARK + b"12") == b"x"
    assert end.code is None
    assert end.rest() == MARK + b"12"
    assert end.rest() == b""

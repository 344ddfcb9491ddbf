"""The generic reader, on a made-up kind of file: nothing in it knows about guests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestrator.core.model import Mode, Size
from orchestrator.errors import Fault, InvalidFileError
from orchestrator.toml_tables import (
    MOST_BYTES,
    MOST_FAULTS,
    MOST_SHOWN,
    Document,
    Schema,
    load,
    plain,
    read,
    shown,
)

SMALL = Size(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    label: str
    room: Size = SMALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Bag:
    cloth: str
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    number: int
    holds: Box | Bag
    mode: Mode = Mode.SHARED
    spare: tuple[Box, ...] = ()
    lamp: bool = False


def _even(number: int, lamp: bool) -> Iterator[Fault]:
    if number % 2 and lamp:
        yield Fault("odd shelves have no lamp", "lamp")


def _distinct(spare: tuple[Box, ...]) -> Iterator[Fault]:
    if len({box.label for box in spare}) < len(spare):
        yield Fault("labels repeat", "spare")


SCHEMA = Schema(
    keys={(Shelf, "number"): "no"},
    words={Size: "a size"},
    checks={
        Shelf: ((("number", "lamp"), _even), (("spare",), _distinct)),
        Box: ((("label",), lambda text: [] if text else [Fault("empty")]),),
    },
)


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        read(Shelf, load(text.encode(), "f"), SCHEMA)
    return [line.removeprefix("f:") for line in caught.value.lines()]


def test_a_whole_file_and_back() -> None:
    text = 'no = 2\nmode = "exclusive"\n[holds]\ncloth = "jute"\n[[spare]]\nlabel = "s"\nroom = "2 KiB"\n'
    shelf = Shelf(number=2, mode=Mode.EXCLUSIVE, holds=Bag(cloth="jute"), spare=(Box(label="s", room=Size(2048)),))
    assert read(Shelf, load(text.encode(), "f"), SCHEMA) == shelf
    table = plain(shelf, SCHEMA)
    assert table["spare"] == [{"label": "s", "room": "2 KiB"}]
    assert read(Shelf, Document("f", table), SCHEMA) == shelf


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ('label = "a"', Box(label="a")),
        ('cloth = "a"\nlabel = "b"', Bag(cloth="a", label="b")),
        ('label = "a"\nroom = "1 KiB"', Box(label="a", room=Size(1024))),
    ],
)
def test_a_union_is_told_apart_by_its_keys(holds: str, expected: Box | Bag) -> None:
    assert read(Shelf, load(f"no = 1\n[holds]\n{holds}".encode(), "f"), SCHEMA).holds == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("holds = {}\nno = 1", ["1: holds: it takes exactly one of label, cloth"]),
        ('holds = {clot = "x"}\nno = 1', ["1: holds.clot: unknown key; did you mean 'cloth'?"]),
        (
            'holds = {zz = 1, cloth = "x", label = "y", room = "1 B"}\nno = 1',
            [
                "1: holds.zz: unknown key; possible are label, room, cloth",
                "1: holds: it takes exactly one of label, cloth",
            ],
        ),
        ('holds = {cloth = "x", room = "1 B"}\nno = 1', ["1: holds.room: does not go with cloth"]),
        ('holds = {label = ""}\nno = 1', ["1: holds: empty"]),
        ('holds = {label = "x"}', [" no: missing; write a whole number"]),
        ("no = 1", [" holds: missing; write a table with exactly one of label, cloth"]),
        ('no = 1\nlamp = true\nholds.label = "x"', ["2: lamp: odd shelves have no lamp"]),
        ('no = 1\nholds.label = "x"\nspare = [{label = "a"}, {label = "a"}]', ["3: spare: labels repeat"]),
        ('no = "1"\nlamp = true\nholds.label = "x"', ["1: no: '1' is not a whole number"]),
        (
            'no = 1\nholds.label = "x"\nspare = [{label = 1}, 2, {}]',
            [
                "3: spare[0].label: 1 is not text in quotes",
                "3: spare[1]: 2 is not a table",
                "3: spare[2].label: missing; write text in quotes",
            ],
        ),
        (
            'no = 1\nspare = {label = "x"}\nholds.label = "x"',
            ["2: spare: a table is not an array of tables, each under a line [[spare]]"],
        ),
    ],
)
def test_every_fault_has_its_line_and_remedy(text: str, expected: list[str]) -> None:
    assert faults(text) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("true", "true is not a whole number"),
        ("1.0", "1.0 is not a whole number"),
        ("nan", "nan is not a whole number"),
        ("07:32:00", "07:32:00 is not a whole number"),
        ("[1]", "an array is not a whole number"),
        ("{}", "a table is not a whole number"),
        ('"\\u001b[31m\\u202e\\n"', "'\\x1b[31m\\u202e\\n' is not a whole number"),
    ],
)
def test_only_whole_numbers_are_whole_numbers(value: str, said: str) -> None:
    assert faults(f'no = {value}\nholds.label = "x"') == [f"1: no: {said}"]


def test_a_number_of_any_length_is_read_exactly() -> None:
    assert read(Shelf, load(f"no = {10**63}\nholds.label = 'x'".encode(), "f"), SCHEMA).number == 10**63


def test_a_flood_of_faults_is_cut_and_counted() -> None:
    lines = faults("no = 1\nholds.label = 'x'\n" + "\n".join(f"z{number} = 1" for number in range(1000)))
    assert len(lines) == MOST_FAULTS + 1
    assert lines[-1].strip() == f"and {1000 - MOST_FAULTS} faults more"


@pytest.mark.parametrize("value", ["x" * 1000, 10**100, ["x"] * 1000, {"x": 1}, "\n" * 100, "\u202e" * 100])
def test_a_message_repeats_little_of_the_text(value: object) -> None:
    assert len(shown(value)) <= MOST_SHOWN
    assert shown(value).isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff\xfea", "f:1: byte 0xff is not UTF-8; a definition is a TOML file"),
        (b"a = 1\nb = '\x80'", "f:2: byte 0x80 is not UTF-8; a definition is a TOML file"),
        (b"a = 1\r\nb = yes\r\n", "f:2: not TOML: Invalid value; text needs quotes"),
        (b"a = [\n1\n", "f:3: not TOML: Unclosed array"),
        (b"a = [\n1,\n", "f:3: not TOML: Invalid value"),
        (b"a = 1\na = 2\n", "f:2: not TOML: Cannot overwrite a value"),
        (b"\x00", "f:1: not TOML: Invalid statement"),
        (b"a = \n\n" + b"[" * 10_000, "f:1: not TOML: Invalid value; text needs quotes"),
        (b"a = 1\nb = " + b"[" * 10_000, "f:2: nested more than 16 levels deep"),
        (b"a = " + b"1" * 10_000, "f:1: a value of 10000 characters is no number; text needs quotes"),
        (b" " * (MOST_BYTES + 1), "f: larger than any definition, 256 KiB at most"),
    ],
)
def test_what_is_not_toml_gets_one_line(text: bytes, said: str) -> None:
    with pytest.raises(InvalidFileError) as caught:
        load(text, "f")
    assert caught.value.lines() == (said,)
    assert caught.value.exit_code == 2


def test_a_byte_order_mark_is_no_fault() -> None:
    assert load(b"\xef\xbb\xbfa = 1", "f").table == {"a": 1}

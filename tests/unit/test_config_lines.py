"""The line finder against tomllib: every leaf carries a mark, whose line the text itself tells."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.toml_lines import (
    MOST_DEPTH,
    MOST_SCALAR,
    KeyPath,
    TomlLimitError,
    dotted,
    key_lines,
    line_of,
)

NAMES = ["a", "b-1", "B_2", "7", "c.d", "e f", 'g"h', "i'j", "ä", "", "#", "[k]"]
GAPS = ["", "\n", "# a = 1 [b] \"\"\" '''\n", "  \n\t# ]\n"]


def keys() -> st.SearchStrategy[str]:
    def spellings(name: str) -> st.SearchStrategy[str]:
        ways = [json.dumps(name)]
        ways += [name] if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else []
        ways += [f"'{name}'"] if "'" not in name else []
        return st.sampled_from(ways)

    part = st.sampled_from(NAMES).flatmap(spellings)
    dots = st.sampled_from([".", " . ", "\t."])
    return st.tuples(dots, st.lists(part, min_size=1, max_size=3)).map(lambda pair: pair[0].join(pair[1]))


def values() -> st.SearchStrategy[str]:
    """Values whose leaves each begin with the mark ``@`` on the line of their key or element."""
    leaf = st.sampled_from(
        [
            '"@ # ] } , = \\" \\\\"',
            "'@ \\ # ] }'",
            '"""@\nm = 1\n[x]\n\\""" \\\\"""""',
            '"""@"""',
            "'''@\n[[t]] # \\\n''''",
        ]
    )
    comma = st.sampled_from([", ", ",\n", " , # c ] }\n\n\t"])
    end = st.sampled_from(["", "\n", ",", ", # end\n"])

    def longer(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        items = st.lists(inner, min_size=1, max_size=3)
        array = st.tuples(items, comma, end).map(lambda it: f"[\n {it[1].join(it[0])}{it[2]}]")
        name = st.sampled_from(["x", '"y z"', "x.q"])
        table = st.tuples(name, inner, inner).map(lambda it: f"{{ {it[0]} = {it[1]} , w={it[2]}}}")
        return array | table

    return st.recursive(leaf, longer, max_leaves=4)


def statements() -> st.SearchStrategy[str]:
    header = st.tuples(st.sampled_from(["[{}]", "[[ {} ]]", "[\t{}]"]), keys())
    headed = header.map(lambda it: f"{it[0].format(it[1])} # [c]\nhere = '@'\n")
    pair = st.tuples(keys(), values()).map(lambda it: f"{it[0]} = {it[1]} # c\n")
    plain = st.tuples(keys(), st.sampled_from(["1", "-1_0.5e3", "0xff", "true", "1979-05-27 07:32:00", "nan"]))
    return headed | pair | plain.map(lambda it: f"{it[0]}={it[1]}\n")


def documents() -> st.SearchStrategy[str]:
    """TOML whose marks are numbered (``@0.``, ``@1.`` ...), without what would make it invalid."""

    def joined(parts: list[tuple[str, str]]) -> str:
        text = ""
        for gap, statement in parts:
            try:
                tomllib.loads(text + statement)
            except tomllib.TOMLDecodeError:
                continue
            text += gap + statement
        pieces = text.split("@")
        return pieces[0] + "".join(f"@{number}.{piece}" for number, piece in enumerate(pieces[1:]))

    return st.lists(st.tuples(st.sampled_from(GAPS), statements()), max_size=8).map(joined)


def leaves(value: object, at: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*at, index))
    else:
        yield at, value


@given(documents())
@settings(deadline=None, max_examples=150)
def test_every_key_is_found_on_its_line(text: str) -> None:
    lines = key_lines(text)
    rows = text.split("\n")
    for path, value in leaves(tomllib.loads(text)):
        line = lines[dotted(path)]
        if isinstance(value, str):
            mark = value[: value.index(".") + 1]
            assert mark in rows[line - 1]
        if path[-1] == "here":
            assert rows[lines[dotted(path[:-1])] - 1].lstrip().startswith("[")
            assert lines[dotted(path[:-1])] == line - 1
        assert all(dotted(path[:depth]) in lines for depth in range(1, len(path)))


@given(documents(), st.integers(min_value=0, max_value=500))
@settings(deadline=None, max_examples=50)
def test_a_text_cut_off_anywhere_is_read_as_far_as_it_goes(text: str, length: int) -> None:
    last = text.count("\n", 0, length) + 1
    assert all(1 <= line <= last for line in key_lines(text[:length]).values())


def test_tables_arrays_and_dotted_keys() -> None:
    text = """\
name = "x"
net . type = 'user'
net.name = "n"

[[disk]]
path = \"\"\"
path = 1
[[disk]]\"\"\"
[disk.cache] # of the first
mode = 1
[[disk]]
list = [
  1, # one
  { deep = [ 2,
    3 ] },
]
[a.b]
[a]
"""
    expected = {
        *((1, "name"), (2, "net"), (2, "net.type"), (3, "net.name")),
        *((5, "disk"), (5, "disk[0]"), (6, "disk[0].path"), (9, "disk[0].cache"), (10, "disk[0].cache.mode")),
        *((11, "disk[1]"), (12, "disk[1].list"), (13, "disk[1].list[0]"), (14, "disk[1].list[1]")),
        *((14, "disk[1].list[1].deep"), (14, "disk[1].list[1].deep[0]"), (15, "disk[1].list[1].deep[1]")),
        *((17, "a.b"), (18, "a")),
    }
    assert {(line, key) for key, line in key_lines(text).items()} == expected


@pytest.mark.parametrize(
    ("key", "line"),
    [("disk[1].path", 4), ("disk[1].format", 3), ("disk[2].format", 1), ("boot.kernel", None), ("", None)],
)
def test_what_is_missing_stands_where_its_table_does(key: str, line: int | None) -> None:
    assert line_of({"disk": 1, "disk[0]": 1, "disk[1]": 3, "disk[1].path": 4}, key) == line


def paths() -> st.SearchStrategy[KeyPath]:
    part = st.text(alphabet='a."[0]\\ä', max_size=3)
    return st.tuples(part, part | st.integers(0, 1))


@given(paths(), paths())
@settings(deadline=None, max_examples=50)
def test_different_paths_are_written_differently(one: KeyPath, other: KeyPath) -> None:
    assert (dotted(one) == dotted(other)) == (one == other)
    assert dotted(one).isascii()


@pytest.mark.parametrize(
    "text",
    [
        "a = 1\nb = " + "[" * 100_000,
        "a = 1\nb = " + "{c=" * 50_000,
        "a = 1\n" + "b." * 100_000 + "b = 1",
        "a = 1\n[" + "b." * 100_000 + "b]",
        "a = 1\nb = [" + "9" * 100_000 + "]",
    ],
)
def test_what_would_cost_too_much_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(TomlLimitError) as caught:
        key_lines(text)
    assert caught.value.line == 2


def test_the_limits_themselves_are_allowed() -> None:
    nested = "[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1)
    lines = key_lines(f"a = {nested}\nb = {'1' * MOST_SCALAR}\n{'.'.join('c' * MOST_DEPTH)} = 1")
    assert lines["b"] == 2
    assert lines[".".join("c" * MOST_DEPTH)] == 3

"""Where each key of a TOML text stands, since tomllib keeps no positions and faults should have lines.

No opinion on what keys mean lives here, nor on what is valid: that is tomllib's to say, and the scanner stops
without a word where it cannot read on. It goes first all the same, to keep from tomllib what would cost it
hours or its stack. The grammar is that of https://toml.io/en/v1.0.0. Everything is O(length of the text).
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress

KeyPath = tuple[str | int, ...]

# Definitions are three deep; tomllib takes quadratic time for dotted keys, and stack for each level.
MOST_DEPTH = 16
# Characters: no date or number that means anything is longer, and Python refuses 4300 digits.
MOST_SCALAR = 64

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\n]++|#[^\n]*+)*+")
_BASIC = r'"(?:[^"\\\n]++|\\.)*+"'
_LITERAL = r"'[^'\n]*+'"
_KEY = re.compile(rf"[A-Za-z0-9_-]++|{_BASIC}|{_LITERAL}")
_DOT = re.compile(r"[ \t]*+(?:\.[ \t]*+)?")
_EQUALS = re.compile(r"=[ \t]*+")
_HEADER = re.compile(r"\[\[?[ \t]*+")
_HEADER_END = re.compile(r"\]\]?")
_COMMA = re.compile(rf"{_BLANK.pattern},?{_BLANK.pattern}")
_LONG = r'"""(?:[^\\]|\\.)*?"{3,5}' "|'''.*?'{3,5}"  # a quote or two may stand before the closing three
_STRING = re.compile(rf"{_LONG}|{_BASIC}|{_LITERAL}", re.DOTALL)
_SCALAR = re.compile(r"""[^,\[\]{}#"'=\n]+""")


class TomlLimitError(Exception):
    """The text is nested or long beyond anything a definition needs; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(message)


def dotted(path: KeyPath) -> str:
    """Return how a key path is written: ``disk[1].path``, parts that are no bare keys in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else json.dumps(part))
    return text


def line_of(lines: Mapping[str, int], key: str) -> int | None:
    """Return the line of a dotted key, else of the innermost table around it; None is the file as a whole."""
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key)


def key_lines(text: str) -> dict[str, int]:
    """Map every dotted key, table and array element of a TOML text (with LF line ends) to its line, from 1.

    A text that is not TOML is mapped as far as it can be read. TomlLimitError says that it is nested
    deeper than `MOST_DEPTH` or has a bare value longer than `MOST_SCALAR`.
    """
    scanner = _Scanner(text)
    with suppress(ValueError):
        scanner.document()
    return scanner.lines


class _Scanner:
    """One pass over a text; each method reads one piece of the grammar, else raises ValueError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._latest: dict[KeyPath, int] = {}  # array of tables -> index of the table that headers mean by it
        self.lines: dict[str, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(pattern.pattern)
        self._at = match.end()
        return match[0]

    def _line(self) -> int:
        return bisect_left(self._breaks, self._at) + 1

    def _note(self, path: KeyPath, line: int) -> None:
        if len(path) > MOST_DEPTH:
            raise TomlLimitError(f"nested more than {MOST_DEPTH} levels deep", line)
        self.lines.setdefault(dotted(path), line)

    def _header(self) -> KeyPath:
        line = self._line()
        opening = self._take(_HEADER)
        *outer, name = self._key()
        self._take(_HEADER_END)
        path: KeyPath = ()
        for part in outer:
            path = (*path, part)
            self._note(path, line)
            if path in self._latest:
                path = (*path, self._latest[path])
        path = (*path, name)
        self._note(path, line)
        if opening.startswith("[["):
            self._latest[path] = self._latest.get(path, -1) + 1
            path = (*path, self._latest[path])
        self.lines[dotted(path)] = line  # a table's own header tells more than one of a table within it
        return path

    def _pair(self, path: KeyPath) -> None:
        line = self._line()
        for part in self._key():
            path = (*path, part)
            self._note(path, line)
        self._take(_EQUALS)
        self._value(path)

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        while "." in self._take(_DOT):
            parts.append(self._key_part())
        return parts

    def _key_part(self) -> str:
        token = self._take(_KEY)
        if token[0] == '"':
            return str(tomllib.loads(f"key = {token}")["key"])
        return token.strip("'")

    def _value(self, path: KeyPath) -> None:
        match self._text[self._at : self._at + 1]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._take(_STRING)
            case _:
                length = len(self._take(_SCALAR).strip())
                if length > MOST_SCALAR:
                    message = f"a value of {length} characters is no number; text needs quotes"
                    raise TomlLimitError(message, self._line())

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        self._take(_BLANK)
        index = 0
        while not self._closed("]"):
            item = (*path, index)
            self._note(item, self._line())
            self._value(item)
            self._take(_COMMA)
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._take(_BLANK)
        while not self._closed("}"):
            self._pair(path)
            self._take(_COMMA)

    def _closed(self, bracket: str) -> bool:
        closed = self._text.startswith(bracket, self._at)
        self._at += closed
        return closed

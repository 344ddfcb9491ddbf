"""TOML tables -> frozen dataclasses, and back to plain data: driven by type hints, collecting every fault.

Nothing here knows what is being described: dataclasses come with a `Schema` that spells and judges them. No file is
opened. A field may be text, a whole number, a flag, a `StrEnum`, a `Schema.words` type, a dataclass, a union of
dataclasses told apart by their required keys, a tuple or a mapping by name of any of these, or a `Schema.partials`
type; any of them optional. Everything is O(length of the text), but for the spelling suggestions of at most
`MOST_FAULTS` keys.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from orchestrator.errors import Fault, InvalidFileError
from orchestrator.toml_lines import KeyPath, TomlLimitError, dotted, key_lines, line_of
from orchestrator.toml_trees import leaves, nested

MOST_BYTES = 256 * 1024
MOST_FAULTS = 50
MOST_SHOWN = 60  # characters of the user's text that a message repeats

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Table = Mapping[str, object]
Check = Callable[..., Iterable[Fault]]

_WORDS: Mapping[type, str] = {int: "a whole number", bool: "true or false", str: "text in quotes"}
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Document:
    """A text that was read: its tables, and the line of each dotted key."""

    file: str
    table: Table
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Schema:
    """How dataclasses are spelled and judged.

    `keys`: what a file calls a field, where it is not the field's name.
    `words`: the types with a ``parse(text)`` that raises ValueError and a `str` that undoes it, each with the
    words for such text, which has at most `MOST_SHOWN` characters.
    `checks`: the rules of each dataclass, called with the values of the named fields once all of them are
    readable; the keys of their faults are relative to the table.
    `partials`: types that are made of pairs (key path, value), each with the dataclass of which they take any part;
    that part is not judged by itself.
    """

    keys: Mapping[tuple[type, str], str]
    words: Mapping[type, str]
    checks: Mapping[type, Sequence[tuple[tuple[str, ...], Check]]]
    partials: Mapping[type, type] = field(default_factory=dict)

    def key(self, cls: type, part: Field[Any]) -> str:
        """Return what a file calls a field."""
        return self.keys.get((cls, part.name), part.name)


def shown(value: object) -> str:
    """Return a value as a message may repeat it: printable, in one line, `MOST_SHOWN` characters at most."""
    match value:
        case dict():
            return "a table"
        case list():
            return "an array"
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case str():
            return clipped(repr(value[:MOST_SHOWN]))
        case _:
            return clipped(str(value))


def clipped(text: str) -> str:
    """Return `text`, cut to `MOST_SHOWN` characters."""
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def load(text: bytes, file: str) -> Document:
    """Read a TOML text that messages call `file`; InvalidFileError names the first thing that is not TOML."""
    if len(text) > MOST_BYTES:
        raise InvalidFileError(file, [Fault(f"larger than any definition, {MOST_BYTES // 1024} KiB at most")])
    try:
        decoded = text.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        message = f"byte 0x{text[error.start]:02x} is not UTF-8; a definition is a TOML file"
        fault = Fault(message, line=text.count(b"\n", 0, error.start) + 1)
        raise InvalidFileError(file, [fault]) from None
    try:
        lines = key_lines(decoded)
        return Document(file, tomllib.loads(decoded), lines)
    except TomlLimitError as error:
        raise InvalidFileError(file, [Fault(str(error), line=error.line)]) from None
    except ValueError as error:
        raise InvalidFileError(file, [_syntax_fault(str(error), decoded)]) from None


def _syntax_fault(message: str, text: str) -> Fault:
    what, *position = _POSITION.split(message)
    line = position[0] if position else None
    remedy = "; text needs quotes" if line and what == "Invalid value" else ""
    return Fault(f"not TOML: {clipped(what)}{remedy}", line=int(line) if line else text.count("\n") + 1)


def read(cls: type[T], document: Document, schema: Schema) -> T:
    """Return the document as a `cls`; InvalidFileError has all that is wrong with it, ordered by line."""
    reader = _Reader(schema, document.lines)
    value = reader.table(cls, document.table, ())
    if value is None:
        faults = sorted(reader.faults, key=lambda fault: fault.line or 0)
        rest = [Fault(f"and {len(faults) - MOST_FAULTS} faults more")] if len(faults) > MOST_FAULTS else []
        raise InvalidFileError(document.file, faults[:MOST_FAULTS] + rest)
    return value


def plain(value: Any, schema: Schema) -> Any:
    """Return a dataclass as the tables that `read` takes back, in JSON's types; None is left out."""
    if is_dataclass(value):
        pairs = ((schema.key(type(value), part), getattr(value, part.name)) for part in fields(value))
        return {key: plain(item, schema) for key, item in pairs if item is not None}
    if type(value) in schema.partials:
        return nested((path, plain(item, schema)) for path, item in value)
    if isinstance(value, tuple):
        return [plain(item, schema) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item, schema) for key, item in value.items()}
    return str(value) if type(value) in schema.words else value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _is_needed(part: Field[Any]) -> bool:
    return part.default is MISSING and part.default_factory is MISSING


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types that a hint allows, None apart."""
    found = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(member for member in found if member is not NoneType)


def _parse(hint: Any, value: object) -> object:
    """Read a `Schema.words` type for msgspec; an error without words means that it is no such text."""
    if not isinstance(value, str) or len(value) > MOST_SHOWN or not hasattr(hint, "parse"):
        raise TypeError
    return hint.parse(value)


class _Reader:
    """One walk over a document. Methods return None for what they cannot read, having put down why."""

    def __init__(self, schema: Schema, lines: Mapping[str, int]) -> None:
        self._schema = schema
        self._lines = lines
        self._words = {**_WORDS, **schema.words}
        self._judges = True
        self.faults: list[Fault] = []

    def table(self, cls: type[T], table: Table, at: KeyPath, family: Sequence[type] = ()) -> T | None:
        """Read a table as `cls`, which was chosen from `family`."""
        before = len(self.faults)
        self._unknown(table, at, family or (cls,))
        self._misplaced(table, at, cls, family)
        values: dict[str, Any] = {}
        for part in fields(cls):
            key, hint = self._schema.key(cls, part), _hints(cls)[part.name]
            if key in table:
                value = self._value(hint, table[key], (*at, key))
                if value is not None:
                    values[part.name] = value
            elif part.default_factory is not MISSING:
                values[part.name] = part.default_factory()
            elif part.default is not MISSING:
                values[part.name] = part.default
            else:
                self._put(dotted((*at, key)), f"missing; write {self._wanted(hint, (*at, key))}")
        self._judge(cls, values, at)
        return cls(**values) if len(self.faults) == before else None

    def _value(self, hint: Any, raw: object, at: KeyPath) -> Any:
        members = _members(hint)
        first, kind = members[0], get_origin(members[0])
        if isinstance(raw, dict) and (is_dataclass(first) or first in self._schema.partials):
            return self._inner(members, raw, at)
        if kind is Mapping and isinstance(raw, dict):
            values = {key: self._value(get_args(first)[1], item, (*at, key)) for key, item in raw.items()}
            return None if None in values.values() else values
        if kind is tuple and isinstance(raw, list):
            items = [self._value(get_args(first)[0], item, (*at, index)) for index, item in enumerate(raw)]
            return None if None in items else tuple(items)
        try:
            return msgspec.convert(raw, first, strict=True, dec_hook=_parse)
        except msgspec.ValidationError as error:
            own_words = str(error.__cause__ or "")
            return self._put(dotted(at), own_words or f"{shown(raw)} is not {self._wanted(hint, at)}")

    def _inner(self, members: Sequence[Any], raw: Table, at: KeyPath) -> Any:
        if members[0] in self._schema.partials:
            return self._partial(members[0], raw, at)
        return self.table(members[0], raw, at) if len(members) == 1 else self._one_of(members, raw, at)

    def _partial(self, cls: Any, raw: Table, at: KeyPath) -> Any:
        """Read the part of a dataclass that is there, and keep the values by where they stand."""
        judged, self._judges = self._judges, False
        whole = self.table(self._schema.partials[cls], raw, at)
        self._judges = judged
        return None if whole is None else cls(leaves(whole, raw, self._schema))

    def _one_of(self, family: Sequence[Any], raw: Table, at: KeyPath) -> Any:
        """Read a table as the class whose needed keys it has; of several, the one that knows most of it."""
        able = [cls for cls in family if raw.keys() >= set(self._keys(cls, needed=True))]
        known = {cls: len(raw.keys() & set(self._keys(cls))) for cls in able}
        best = [cls for cls in able if known[cls] == max(known.values())]
        if len(best) == 1:
            return self.table(best[0], raw, at, family)
        before = len(self.faults)
        self._unknown(raw, at, family)
        if able or len(self.faults) == before:  # else the unknown key is the needed one, misspelled
            self._put(dotted(at), f"it takes exactly one of {self._choice(family)}")
        return None

    def _wanted(self, hint: Any, at: KeyPath) -> str:
        members = _members(hint)
        first = members[0]
        if is_dataclass(first):
            return f"a table with exactly one of {self._choice(members)}" if len(members) > 1 else "a table"
        if get_origin(first) is Mapping or first in self._schema.partials:
            return "a table"
        if get_origin(first) is tuple:
            item = get_args(first)[0]
            if is_dataclass(item):
                return f"an array of tables, each under a line [[{dotted(at)}]]"
            return f"an array, each of its values {self._wanted(item, at)}"
        return f"one of {', '.join(first)}" if issubclass(first, StrEnum) else self._words[first]

    def _choice(self, family: Iterable[Any]) -> str:
        return ", ".join(key for cls in family for key in self._keys(cls, needed=True))

    def _keys(self, cls: Any, *, needed: bool = False) -> list[str]:
        return [self._schema.key(cls, part) for part in fields(cls) if _is_needed(part) or not needed]

    def _unknown(self, table: Table, at: KeyPath, family: Iterable[type]) -> None:
        allowed = list(dict.fromkeys(key for cls in family for key in self._keys(cls)))
        for key in [key for key in table if key not in allowed]:
            near = difflib.get_close_matches(key, allowed, 1) if len(self.faults) < MOST_FAULTS else ()
            hint = f"did you mean {near[0]!r}?" if near else f"possible are {', '.join(allowed)}"
            self._put(dotted((*at, key)), f"unknown key; {hint}")

    def _misplaced(self, table: Table, at: KeyPath, cls: type, family: Iterable[type]) -> None:
        elsewhere = {key for other in family for key in self._keys(other)} - set(self._keys(cls))
        for key in [key for key in table if key in elsewhere]:
            self._put(dotted((*at, key)), f"does not go with {self._choice([cls])}")

    def _judge(self, cls: type, values: Mapping[str, Any], at: KeyPath) -> None:
        for names, check in self._schema.checks.get(cls, ()) if self._judges else ():
            if values.keys() >= set(names):
                for fault in check(*(values[name] for name in names)):
                    self._put(".".join(filter(None, (dotted(at), fault.key))), fault.message)

    def _put(self, key: str, message: str) -> None:
        self.faults.append(Fault(message, clipped(key), line_of(self._lines, key)))

"""Policy files: TOML text -> `Policy`, with where each value was written. No file is opened here.

A file can extend another (``extends = "default.toml"``, a path relative to the file): it then has all that the other
says, and its own values in place of those. Arrays of tables (windows, reservations, guests) add up.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple, TypeGuard

from orchestrator.core.policy import Policy
from orchestrator.errors import Fault, InvalidFileError, InvalidFilesError, UsageError
from orchestrator.policy_schema import SCHEMA
from orchestrator.toml_lines import KeyPath, dotted, line_of
from orchestrator.toml_tables import MOST_SHOWN, Document, load, plain, read, shown
from orchestrator.toml_trees import judge

__all__ = ["SCHEMA", "Origin", "SourcedPolicy", "parse_policy", "read_policy"]

MOST_FILES = 16
_INDEX = re.compile(r"\[(\d+)\]")

Opener = Callable[[str], bytes]
"""Returns the bytes of a file by its path; raises UsageError if it cannot be read."""


class Origin(NamedTuple):
    """Where a value was written; lines count from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class SourcedPolicy:
    """A policy, and where each key of it was written; what is not there is built in. `files` has the first one last."""

    policy: Policy
    origins: Mapping[str, Origin] = field(default_factory=dict)
    files: tuple[str, ...] = ()


def parse_policy(text: bytes, file: str) -> Policy:
    """Read a policy that extends no other, with its paths as they are written.

    InvalidFileError lists every fault of the file, `file` is what messages call it.
    """
    chain = _Chain()
    chain.add(load(text, file))
    return chain.read().policy


def read_policy(file: str, open_file: Opener, directory: str = "") -> SourcedPolicy:
    """Read a policy file and those that it extends; `file` is its path and what messages call it.

    Relative paths in a file start at its own directory; that of the first one is `directory`, absolute, if given. All
    faults of all files are raised at once as InvalidFileError or InvalidFilesError.
    """
    chain = _Chain()
    documents: list[tuple[Document, str]] = []
    name, folder = file, directory or posixpath.dirname(file)
    seen: list[str] = []
    while True:
        seen.append(posixpath.normpath(posixpath.join(folder, posixpath.basename(name))))
        document = _opened(name, open_file, documents[-1][0] if documents else None)
        documents.append((document, folder))
        extends = document.table.get("extends")
        if extends is None:
            break
        if not isinstance(extends, str) or not extends:
            raise _fault(document, f"{shown(extends)} is not the path of a policy file in quotes")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), extends))
        target = posixpath.normpath(posixpath.join(folder, extends))
        folder = posixpath.dirname(target)
        if target in seen:
            circle = " -> ".join([*(posixpath.basename(each) for each in seen), posixpath.basename(target)])
            raise _fault(document, f"the files extend each other in a circle: {circle}; take one of these lines out")
        if len(seen) == MOST_FILES:
            raise _fault(document, f"more than {MOST_FILES} files extend one another")
    for document, folder in reversed(documents):
        chain.add(document, folder)
    return chain.read()


def _opened(name: str, open_file: Opener, extended_by: Document | None) -> Document:
    try:
        return load(open_file(name), name)
    except InvalidFileError:
        raise
    except UsageError as error:
        if extended_by is None:
            raise
        raise _fault(extended_by, f"what it extends {str(error).removeprefix(f'{name}: ')} ({name})") from None


def _fault(document: Document, message: str) -> InvalidFileError:
    return InvalidFileError(document.file, [Fault(message, "extends", line_of(document.lines, "extends"))])


class _Chain:
    """Policy files on top of each other: one table, and for each key the number of its origin in place of a line."""

    def __init__(self) -> None:
        self._table: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._origins: list[Origin] = []
        self._files: list[str] = []

    def add(self, document: Document, directory: str | None = None) -> None:
        """Put a file on top; relative paths in it start at the directory, if there is one."""
        table: dict[str, Any] = dict(document.table)
        if directory is None and "extends" in table:
            raise _fault(document, "nothing can be extended here; only a policy file can do so")
        table.pop("extends", None)
        if directory is not None:
            table = _located(table, directory)
        shifts: dict[str, int] = {}
        self._merge(self._table, table, (), shifts)
        self._files.append(document.file)
        for key, line in document.lines.items():
            self._origins.append(Origin(document.file, line))
            self._numbers[_counted_on(key, shifts)] = len(self._origins)

    def read(self) -> SourcedPolicy:
        """Read everything as one policy."""
        document = Document(self._files[-1], self._table, self._numbers)
        try:
            policy = read(Policy, document, SCHEMA)
        except InvalidFileError as error:
            raise self._located_error(error.faults) from None
        faults = [replace(fault, line=line_of(self._numbers, fault.key)) for fault in _in_windows(policy)]
        if faults:
            raise self._located_error(faults)
        origins = {key: self._origins[number - 1] for key, number in self._numbers.items()}
        return SourcedPolicy(policy, origins, tuple(self._files))

    def _merge(self, old: dict[str, Any], new: Mapping[str, Any], at: tuple[str, ...], shifts: dict[str, int]) -> None:
        for key, value in new.items():
            before, here = old.get(key), (*at, key)
            if isinstance(before, dict) and isinstance(value, dict):
                self._merge(before, value, here, shifts)
            elif _are_tables(before) and _are_tables(value):
                shifts[dotted(here)] = len(before)
                old[key] = [*before, *value]
            else:
                self._forget(dotted(here))
                old[key] = dict(value) if isinstance(value, dict) else value

    def _forget(self, key: str) -> None:
        for known in [known for known in self._numbers if known.startswith((f"{key}[", f"{key}."))]:
            del self._numbers[known]

    def _located_error(self, faults: Iterable[Fault]) -> UsageError:
        by_file: dict[str, list[Fault]] = {}
        for fault in faults:
            origin = self._origins[fault.line - 1] if fault.line else None
            file = origin.file if origin else self._files[-1]
            by_file.setdefault(file, []).append(replace(fault, line=origin.line if origin else None))
        errors = [InvalidFileError(file, found) for file, found in by_file.items()]
        return errors[0] if len(errors) == 1 else InvalidFilesError(errors)


def _counted_on(key: str, shifts: Mapping[str, int]) -> str:
    """Return the key of an array's element, counted on from those that were there before."""
    head, bracket, rest = key.partition("[")
    if not bracket or not shifts.get(head):
        return key
    index, _, tail = rest.partition("]")
    return f"{head}[{int(index) + shifts[head]}]{tail}"


def _are_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _located(table: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Return the tables of a policy, its relative paths joined to the directory; what is no path is left as it is."""

    def joined(path: object) -> object:
        return posixpath.normpath(posixpath.join(directory, path)) if isinstance(path, str) and path else path

    changed = dict(table)
    allowed, guests, windows = (table.get(key) for key in ("allowed", "guest", "window"))
    if isinstance(allowed, dict) and isinstance(folders := allowed.get("payload_directories"), list):
        changed["allowed"] = {**allowed, "payload_directories": [joined(folder) for folder in folders]}
    if _are_tables(guests):
        changed["guest"] = [
            {key: joined(value) if key == "definition" else value for key, value in guest.items()} for guest in guests
        ]
    if _are_tables(windows):
        changed["window"] = [
            {**window, "set": _located(window["set"], directory)} if isinstance(window.get("set"), dict) else window
            for window in windows
        ]
    return changed


def _in_windows(policy: Policy) -> Iterator[Fault]:
    """Yield what is wrong with the policy while a window is open, or two of them are.

    No rule of the schema needs more than two values, so nothing is missed with three open.
    """
    told: set[tuple[str, str]] = set()
    singles = [(index,) for index in range(len(policy.window))]
    pairs = [
        (one, other)
        for one, other in combinations(range(len(policy.window)), 2)
        if _sections(policy, one) & _sections(policy, other)
    ]
    for indices in (*singles, *pairs):
        changed = policy
        for index in indices:
            changed = policy.window[index].set.apply(changed)
        for fault in judge(replace(changed, window=()), SCHEMA):
            key = _within_guests(fault.key, len(policy.guest))
            if (key, fault.message) not in told:
                told.add((key, fault.message))
                beside = f" (while {policy.window[indices[0]].name!r} is open too)" if len(indices) > 1 else ""
                yield Fault(f"{fault.message}{beside}", f"window[{indices[-1]}].set.{key}"[:MOST_SHOWN])


def _sections(policy: Policy, index: int) -> set[str]:
    return {path[0] for path, _ in policy.window[index].set}


def _within_guests(key: str, before: int) -> str:
    """Return a key in a window: its guests are counted from 0, not from behind those that there are."""
    if not key.startswith("guest["):
        return key
    return _INDEX.sub(lambda match: f"[{int(match[1]) - before}]", key, count=1)


class Value(NamedTuple):
    """One value of a policy: its key, itself in JSON's types, and ``file:line`` or who else says so."""

    key: str
    value: object
    source: str


BUILT_IN = "built-in"
HOST_GROUP = "the host's group"


def effective(sourced: SourcedPolicy) -> list[Value]:
    """Return every value that holds, in the order of the sections. What limits nothing is left out."""
    return list(_values(plain(sourced.policy, SCHEMA), (), sourced.origins))


def _values(value: Any, at: KeyPath, origins: Mapping[str, Origin]) -> Iterator[Value]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values(item, (*at, key), origins)
    elif _are_tables(value):
        for index, item in enumerate(value):
            yield from _values(item, (*at, index), origins)
    elif at and not (value == [] and len(at) == 1):
        key = dotted(at)
        origin = origins.get(key)
        unwritten = HOST_GROUP if at[0] == "group" and at[-1] == "members" else BUILT_IN
        yield Value(key, value, unwritten if origin is None else str(origin))

"""Trees of dataclasses, mappings and tuples, and the tables they are read from: walked, taken apart, put together.

Everything is linear in the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Fault
from orchestrator.toml_lines import KeyPath, dotted

if TYPE_CHECKING:
    from orchestrator.toml_tables import Schema


def judge(value: Any, schema: Schema) -> Iterator[Fault]:
    """Yield what the schema's checks find in a dataclass and in those within it; keys are as `read` gives them."""
    yield from _judge(value, schema, ())


def _judge(value: Any, schema: Schema, at: KeyPath) -> Iterator[Fault]:
    if is_dataclass(value):
        for names, check in schema.checks.get(type(value), ()):
            for fault in check(*(getattr(value, name) for name in names)):
                yield replace(fault, key=".".join(filter(None, (dotted(at), fault.key))))
        for part in fields(value):
            yield from _judge(getattr(value, part.name), schema, (*at, schema.key(type(value), part)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _judge(item, schema, (*at, key))
    elif isinstance(value, tuple) and type(value) not in schema.partials:
        for index, item in enumerate(value):
            yield from _judge(item, schema, (*at, index))


def nested(leaves: Iterable[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """Return values by key paths as tables in tables."""
    tables: dict[str, Any] = {}
    for path, value in leaves:
        inner = tables
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return tables


def leaves(
    value: Any, raw: Mapping[str, object], schema: Schema, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield where the values of a table stand in what was read from it, and what they are there."""
    names = {schema.key(type(value), part): part.name for part in fields(value)} if is_dataclass(value) else {}
    for key, item in raw.items():
        name = names.get(key, key)
        inner = getattr(value, name) if names else value[name]
        if isinstance(item, dict) and (is_dataclass(inner) or isinstance(inner, Mapping)):
            yield from leaves(inner, item, schema, (*at, name))
        else:
            yield (*at, name), inner

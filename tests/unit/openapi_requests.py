"""Requests made of an OpenAPI description: such as it allows, such as it does not, and noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

Schema = Mapping[str, Any]

TEXT = st.text(max_size=20) | st.sampled_from(["", ".", "..", "a/b", "%00", "web", "-1", "1e9", "\x00", "\ud7ff"])
NUMBER = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**40])
NOISE = st.recursive(
    st.none() | st.booleans() | NUMBER | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Made:
    """A request, and the operation of the description that it is for."""

    method: str
    target: str
    body: bytes
    operation: Schema

    @property
    def line(self) -> str:
        return f"{self.method} {self.target}"


def requests(
    description: Schema, names: st.SearchStrategy[str], text: st.SearchStrategy[str]
) -> st.SearchStrategy[Made]:
    """Return requests for every operation; `names` are for guests, `text` for what schemas leave open."""
    operations = [
        (path, method.upper(), operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return st.sampled_from(operations).flatmap(
        lambda found: _request(found, description["components"]["schemas"], names, text)
    )


@st.composite
def _request(
    draw: st.DrawFn,
    found: tuple[str, str, Schema],
    components: Schema,
    names: st.SearchStrategy[str],
    text: st.SearchStrategy[str],
) -> Made:
    path, method, operation = found
    query = []
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(draw(names), safe=""))
        elif draw(st.booleans()):
            value = draw(matching(parameter["schema"], components, text) | NOISE)
            query.append(f"{parameter['name']}={quote(str(value))}")
    body = b""
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        good = matching(content["schema"], components, text)
        value = draw(good | good.map(_spoiled) | NOISE)
        body = json.dumps(value).encode("utf-8", "surrogatepass")
        body = draw(st.sampled_from([body, body, body, body[:-1], b"", b"\xff" + body, body * 2]))
    return Made(method, "?".join([path, "&".join(query)] if query else [path]), body, operation)


def matching(schema: Schema, components: Schema, text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Return values that a schema allows, as far as our own descriptions go."""
    if "$ref" in schema:
        return matching(components[schema["$ref"].rpartition("/")[2]], components, text)
    if "anyOf" in schema:
        return st.one_of([matching(each, components, text) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("type") == "object":
        return _object(schema, components, text)
    if schema.get("type") == "array":
        items = schema.get("items")
        return st.lists(matching(items, components, text) if items else NOISE, max_size=3)
    plain: dict[str | None, st.SearchStrategy[Any]] = {
        "string": text,
        "integer": st.integers(-(2**63), 2**63) | st.integers(0, 3),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "null": st.none(),
        None: NOISE,
    }
    return plain[schema.get("type")]


def _object(schema: Schema, components: Schema, text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    properties = {name: matching(each, components, text) for name, each in schema.get("properties", {}).items()}
    needed = schema.get("required", ())
    if not properties:
        return st.dictionaries(TEXT, NOISE, max_size=3)
    return st.fixed_dictionaries(
        {name: each for name, each in properties.items() if name in needed},
        optional={name: each for name, each in properties.items() if name not in needed},
    )


def _spoiled(value: Any) -> Any:
    """Return a value with something missing, or something that nobody knows."""
    if isinstance(value, dict) and value:
        return {**{key: value[key] for key in list(value)[1:]}, "colour": "red"}
    return [value]

"""The API's description for programs (OpenAPI 3.1), made of its routes and of the types that travel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from orchestrator.service.messages import STATUSES, USER, ErrorBody
from orchestrator.service.routes import JSON, ROUTES, Route

_TEXT = {"type": "string"}
_FOR = {"name": USER, "in": "query", "description": "Act for this user, as an admin may.", "schema": _TEXT}
_ANYTHING = {"description": "Any value."}
_ERRORS = {
    413: "the request is too long",
    429: "too many requests, or connections; Retry-After says when to try again",
    **STATUSES,
}


def description(version: str) -> dict[str, Any]:
    """Return the description. Growth: the routes and types."""
    bodies = [each.body for each in ROUTES if each.body is not None]
    kinds = [*(kind for each in ROUTES for kind in each.answers), *bodies, ErrorBody]
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}", schema_hook=lambda _: _ANYTHING
    )
    spelled = dict(zip(map(str, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, spelled)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestrator",
            "version": version,
            "description": "HTTP over a Unix socket; the caller is who the kernel says (SO_PEERCRED).",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, spelled: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": each, "in": "path", "required": True, "schema": _TEXT} for each in route.parameters
    ]
    parameters += [
        {"name": each.name, "in": "query", "description": each.what, "schema": {"type": "integer", "minimum": 0}}
        for each in route.query
    ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.what,
        "parameters": [*parameters, _FOR],
        "responses": {**dict(_refusals(spelled[str(ErrorBody)])), **_answer(route, spelled)},
    }
    if route.body is not None:
        content = {JSON: {"schema": spelled[str(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(route: Route, spelled: dict[str, Any]) -> dict[str, Any]:
    if route.socket:
        return {"101": {"description": "A WebSocket."}}
    kinds = [spelled[str(kind)] for kind in route.answers]
    schema = {"schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}} if kinds else {}
    return {"200": {"description": "Done.", "content": {route.media: schema}}}


def _refusals(schema: Any) -> Iterable[tuple[str, Any]]:
    for status, what in sorted(_ERRORS.items()):
        yield str(status), {"description": what, "content": {JSON: {"schema": schema}}}

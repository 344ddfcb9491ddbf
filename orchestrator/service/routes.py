"""The API as a table: what there is to ask, and what travels with it. The server and its description are made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.service.events import Event, Missed
from orchestrator.service.inspection import DebuggerView, DebugRequest, InspectionView, InspectRequest
from orchestrator.service.messages import (
    PREFIX,
    CloneRequest,
    Clones,
    Done,
    Kept,
    MoveRequest,
    NameRequest,
    PolicyRequest,
    Removed,
    ResizeRequest,
    StartRequest,
    States,
)
from orchestrator.service.overview import Overview
from orchestrator.service.payload_desk import AddRequest, Collected, PayloadList, PayloadView, Reference, Shares
from orchestrator.service.views import CoreView, ExplanationView, Foreseen, GuestDetails, GuestView, PolicyView, Started

JSON, LINES, BYTES = "application/json", "application/x-ndjson", "application/octet-stream"


class Guests(msgspec.Struct, frozen=True):
    """The caller's guests, by name."""

    guests: tuple[GuestView, ...]


class Cores(msgspec.Struct, frozen=True):
    """The online cores of the host."""

    cores: tuple[CoreView, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A number, 0 or more, in a query; 0 if it is left out."""

    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Route:
    """Something to ask: `name` is that of what answers, `answer` the type, or a tuple of types, of what it says.

    None as `answer`: bytes. A `socket` goes on as a WebSocket.
    """

    method: str
    path: str
    name: str
    what: str
    answer: Any = None
    body: type | None = None
    query: tuple[Query, ...] = ()
    media: str = JSON
    socket: bool = False

    @property
    def answers(self) -> tuple[Any, ...]:
        """Return the types that what it says, or each piece of that, may have."""
        if self.answer is None:
            return ()
        return self.answer if isinstance(self.answer, tuple) else (self.answer,)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))


_GUESTS, _ONE = f"{PREFIX}/guests", f"{PREFIX}/guests/{{name}}"
_PAYLOADS = f"{PREFIX}/payloads"
_STATES = f"{PREFIX}/states"
_FOLLOW = Query("follow", "1: go on as more comes")


def _act(word: str, what: str) -> Route:
    return Route("POST", f"{_ONE}/{word}", word, what, Done)


ROUTES = (
    Route(
        "POST", _GUESTS, "start", "Start guests, all or none; or foresee a start.", (Started, Foreseen), StartRequest
    ),
    Route("GET", _GUESTS, "guests", "Show the caller's guests.", Guests),
    Route("GET", _ONE, "guest", "Show all there is to know of a guest.", GuestDetails),
    Route("DELETE", _ONE, "remove", "Forget a guest that has ended.", Done),
    _act("stop", "End a guest; it is asked to shut down first."),
    _act("kill", "End a guest's process at once."),
    _act("pause", "Let a guest stand still until it is resumed."),
    _act("resume", "Let a paused guest go on."),
    _act("restart", "End a guest and start it anew by the same definition."),
    Route("POST", f"{_ONE}/inspect", "inspect", "Look inside a guest.", InspectionView, InspectRequest),
    Route("POST", f"{_ONE}/debug", "debug", "Open a gdb server for a guest, or close it.", DebuggerView, DebugRequest),
    Route("POST", f"{_ONE}/move", "move", "Have an exclusive guest on other cores.", GuestDetails, MoveRequest),
    Route("POST", f"{_ONE}/resize", "resize", "Have so many vCPUs in a guest.", GuestDetails, ResizeRequest),
    Route("GET", f"{_ONE}/explain", "explain", "Say why a guest waits, or where it runs.", ExplanationView),
    Route(
        "GET",
        f"{_ONE}/log",
        "log",
        "Read what a guest has printed on its serial port. The header Orchestrator-End says where to read on.",
        query=(Query("start", "the first byte that is wanted"), _FOLLOW),
        media=BYTES,
    ),
    Route(
        "GET", f"{_ONE}/console", "console", "Attach to a guest's serial port, alone; messages are bytes.", socket=True
    ),
    Route("POST", f"{PREFIX}/policy", "policy", "Put a policy in force; for root.", PolicyView, PolicyRequest),
    Route("GET", f"{PREFIX}/cores", "cores", "Show each core, and which of the caller's guests holds it.", Cores),
    Route("GET", f"{PREFIX}/overview", "overview", "Show how cores, guests and users stand, in figures.", Overview),
    Route(
        "GET",
        f"{PREFIX}/events",
        "events",
        "Tell what has happened to the caller's guests, an object a line.",
        (Event, Missed),
        query=(Query("since", "only those after this number"), _FOLLOW),
        media=LINES,
    ),
    Route("GET", _PAYLOADS, "payloads", "Show the payloads that the caller may map, and his quota.", PayloadList),
    Route("POST", _PAYLOADS, "payload-add", "Add a file that the caller may read.", PayloadView, AddRequest),
    Route(
        "POST",
        f"{_PAYLOADS}/remove",
        "payload-remove",
        "Take out a payload that no guest maps.",
        PayloadView,
        Reference,
    ),
    Route(
        "POST", f"{_PAYLOADS}/verify", "payload-verify", "Read a payload's file and compare.", PayloadView, Reference
    ),
    Route("POST", f"{_PAYLOADS}/gc", "payload-gc", "Remove what nobody's payload is; for admins.", Collected),
    Route("GET", f"{_PAYLOADS}/shares", "payload-shares", "Show what the caller's guests map.", Shares),
    Route("POST", f"{_ONE}/save", "save", "Write a guest's state and end it.", Kept, NameRequest),
    Route("POST", f"{_ONE}/snapshots", "snapshot", "Write a guest's state; it goes on.", Kept, NameRequest),
    Route("POST", f"{_ONE}/snapshots/{{snapshot}}/revert", "revert", "Have a guest go on from a snapshot.", Kept),
    Route("POST", f"{_ONE}/template", "template", "Make a template of a guest; it goes on.", Kept, NameRequest),
    Route("GET", f"{_STATES}/{{kind}}", "states", "Show what is kept: saved, snapshot or template.", States),
    Route("DELETE", f"{_STATES}/{{kind}}/{{name}}", "state-remove", "Remove a state that is kept.", Removed),
    Route("POST", f"{_STATES}/saved/{{name}}/restore", "restore", "Have a saved guest go on.", Kept),
    Route("POST", f"{_STATES}/template/{{name}}/clone", "clone", "Start clones, all or none.", Clones, CloneRequest),
    Route("POST", f"{PREFIX}/gc", "gc", "Remove what was left unfinished; for root.", Removed),
    Route("GET", "/metrics", "metrics", "Tell the same figures as Prometheus reads them.", media="text/plain"),
    Route("GET", f"{PREFIX}/openapi.json", "openapi", "Describe this API.", dict[str, object]),
)
"""All that can be asked."""

"""The daemon's API: paths to what the desk does, HTTP's words for its answers. A defect costs one request, no guest."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.service import streams
from orchestrator.service.callers import Peer, peer_of
from orchestrator.service.desk import Act, Desk
from orchestrator.service.door import Door
from orchestrator.service.inspection import DebugRequest, InspectRequest
from orchestrator.service.messages import (
    DEFECT,
    MOST_BODY,
    PREFIX,
    USER,
    Done,
    ErrorBody,
    MoveRequest,
    PolicyRequest,
    ResizeRequest,
    StartRequest,
    encode_error,
)
from orchestrator.service.metrics import CONTENT_TYPE, expose
from orchestrator.service.openapi import description
from orchestrator.service.overview import OverviewDesk
from orchestrator.service.payload_api import payload_handlers
from orchestrator.service.policies import PolicyDesk
from orchestrator.service.routes import ROUTES, Cores, Guests
from orchestrator.service.serials import SerialDesk
from orchestrator.service.states import StateDesk, Tells

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")

BODY_LIMIT = 10.0
"""Seconds in which the body of a request must have come."""

_CALLER = web.RequestKey("caller", Peer)  # who asks
_NEWLINE = b"\n"
_EMERGENCY = f"{PREFIX}/admin"
"""Below this there is nothing, and whoever asks for it is recorded."""

_READS = ("GET",)


@dataclass(frozen=True, slots=True)
class Desks:
    """Who answers beside the desk of guests."""

    policies: PolicyDesk
    serials: SerialDesk
    states: StateDesk
    overview: OverviewDesk


class Api:
    """The routes. `log` is given a line for each defect; `peer` says who is at the other end of a connection."""

    def __init__(
        self,
        desk: Desk,
        door: Door,
        log: Callable[[str], None],
        version: str = "0",
        peer: Callable[[socket.socket], Peer] = peer_of,
        *,
        desks: Desks,
    ) -> None:
        self._desk = desk
        self._door = door
        self._policies, self._serials, self._states = desks.policies, desks.serials, desks.states
        self._overviews = desks.overview
        self._log = log
        self._version = version
        self._peer = peer

    def application(self) -> web.Application:
        """Return the application, to be served on a Unix socket."""
        application = web.Application(middlewares=[self._answer], client_max_size=MOST_BODY)
        desk = self._desk
        acts: dict[str, Act] = {
            "stop": desk.stop,
            "kill": desk.kill,
            "pause": desk.pause,
            "resume": desk.resume,
            "restart": desk.restart,
            "remove": desk.remove,
        }
        handlers: dict[str, Handler] = {
            "start": self._start,
            "guests": self._guests,
            "guest": self._guest,
            "explain": self._explain,
            "cores": self._cores,
            "overview": self._overview,
            "metrics": self._metrics,
            "events": self._events,
            "log": self._read_log,
            "console": self._console,
            "openapi": self._openapi,
            "policy": self._policy,
            "move": self._reseat(MoveRequest, desk.move),
            "inspect": self._reseat(InspectRequest, desk.inside.inspect),
            "debug": self._reseat(DebugRequest, desk.inside.debug),
            "resize": self._reseat(ResizeRequest, desk.resize),
            **{word: self._act(act) for word, act in acts.items()},
            **payload_handlers(desk.payloads, self._handles),
            **{name: _telling(tell) for name, tell in self._states.handlers().items()},
        }
        application.add_routes([web.route(each.method, each.path, handlers[each.name]) for each in ROUTES])
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a handler answer those who are let in; whatever is raised becomes an answer too."""
        try:
            await self._admit(request)
            return await handler(request)
        except OrchestratorError as error:
            status, body = encode_error(error)
        except web.HTTPException as refusal:
            status, body = (
                refusal.status,
                ErrorBody("usage", (f"{request.method} {request.path}: {refusal.reason}",), 2),
            )
        except ConnectionError:
            raise  # the caller has gone: nobody is left to be answered
        except Exception as defect:
            line = f"a defect in orchestrator: {request.method} {request.path}: {type(defect).__name__}: {defect}"
            self._log(line)
            status, body = 500, ErrorBody(DEFECT, (line,), 1)
        answer = _json(body, status)
        if body.retry_after is not None:
            answer.headers["Retry-After"] = str(math.ceil(body.retry_after))
        return answer

    async def _admit(self, request: web.Request) -> None:
        connection = None if request.transport is None else request.transport.get_extra_info("socket")
        if connection is None:
            raise ConnectionResetError
        peer, wanted = self._peer(connection), request.query.get(USER)
        caller = await self._door.admit(peer, wanted)
        if request.path.startswith(_EMERGENCY):
            await self._door.refuse_emergency(caller, request.path)
        if request.method not in _READS:
            self._door.require_no_lockdown()
        request[_CALLER] = caller
        if request.method not in _READS:
            by, why = caller.by or caller.user, f"{request.method} {request.path}"
            if caller.by:
                self._desk.events.add("acted for", owner=caller.user, why=f"by {by}: {why}", by=by)
            else:
                name = request.match_info.get("name", "") if request.path.startswith(f"{PREFIX}/guests/") else ""
                self._desk.events.add("asked", name, self._desk.owner_of(name) or by, why=why, by=by)

    async def _start(self, request: web.Request) -> web.StreamResponse:
        wanted = await _body(request, StartRequest)
        act = self._desk.foresee if wanted.dry_run else self._desk.start
        return _json(await act(_caller(request), wanted))

    async def _policy(self, request: web.Request) -> web.StreamResponse:
        peer, wanted = _caller(request), await _body(request, PolicyRequest)
        return _json(await self._policies.apply(peer, wanted))

    async def _guests(self, request: web.Request) -> web.StreamResponse:
        return _json(Guests(self._desk.guests(_caller(request))))

    async def _guest(self, request: web.Request) -> web.StreamResponse:
        return _json(self._desk.guest(_caller(request), request.match_info["name"]))

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        return _json(self._desk.explain(_caller(request), request.match_info["name"]))

    async def _cores(self, request: web.Request) -> web.StreamResponse:
        return _json(Cores(self._desk.cores(_caller(request))))

    async def _overview(self, request: web.Request) -> web.StreamResponse:
        return _json(self._overviews.overview(_caller(request)))

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        text = await expose(self._overviews.overview(_caller(request)))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _openapi(self, _request: web.Request) -> web.StreamResponse:
        return _json(description(self._version))

    def _act(self, act: Act) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            name = request.match_info["name"]
            await act(_caller(request), name)
            return _json(Done(name))

        return handle

    def _reseat(self, body: type[_T], ask: Callable[[Peer, str, _T], Awaitable[object]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            peer, wanted = _caller(request), await _body(request, body)
            return _json(await ask(peer, request.match_info["name"], wanted))

        return handle

    def _handles(self, body: type[Any] | None, ask: Callable[[Peer, Any], Awaitable[object]]) -> Handler:
        """Return what answers a caller with what `ask` says, given the request's body if it has one."""

        async def handle(request: web.Request) -> web.StreamResponse:
            peer = _caller(request)
            return _json(await ask(peer, None if body is None else await _body(request, body)))

        return handle

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since, follow = _number(request, "since"), _number(request, "follow") == 1
        caller = _caller(request)

        def shown(owner: str) -> bool:
            self._door.require_no_ban(caller.user)
            return caller.sees(owner)

        return await streams.events(request, self._desk.events.read(since, follow=follow), shown)

    async def _read_log(self, request: web.Request) -> web.StreamResponse:
        caller, name = _caller(request), request.match_info["name"]
        start, follow = _number(request, "start"), _number(request, "follow") == 1
        read = self._serials.log(caller, name)

        def goes_on() -> bool:
            self._door.require_no_ban(caller.user)
            return follow and self._serials.prints(caller, name)

        return await streams.log(request, read, start, goes_on)

    async def _console(self, request: web.Request) -> web.StreamResponse:
        return await streams.console(request, self._serials.console(_caller(request), request.match_info["name"]))


def _caller(request: web.Request) -> Peer:
    return request[_CALLER]


def _telling(tell: Tells) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return _json(await tell(_caller(request), request))

    return handle


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value) + _NEWLINE, status=status, content_type="application/json")


async def _body(request: web.Request, kind: type[_T]) -> _T:
    """Read a request's body; UsageError if it is not what it should be, or does not come."""
    try:
        async with asyncio.timeout(BODY_LIMIT):
            return msgspec.json.decode(await request.read(), type=kind)
    except TimeoutError:
        raise UsageError(f"the request's body has not come within {BODY_LIMIT:g} s") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"the request's body is not valid: {error}") from None


def _number(request: web.Request, key: str) -> int:
    text = request.query.get(key, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # 63 bits, as a file's offset has
        raise UsageError(f"{key}={text[:40]!r} is not possible; it is a number, 0 or more")
    return int(text)

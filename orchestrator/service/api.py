"""The daemon's API: paths to what the desk does, HTTP's words for its answers. A defect costs one request, no guest."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.service.callers import Peer, peer_of
from orchestrator.service.desk import Act, Desk
from orchestrator.service.events import Event
from orchestrator.service.messages import (
    DEFECT,
    MOST_BODY,
    PREFIX,
    ErrorBody,
    MoveRequest,
    PolicyRequest,
    ResizeRequest,
    StartRequest,
    encode_error,
)
from orchestrator.service.payload_api import payload_routes
from orchestrator.service.policies import PolicyDesk

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")

BODY_LIMIT = 10.0
"""Seconds in which the body of a request must have come."""

_NEWLINE = b"\n"


class Api:
    """The routes. `log` is given a line for each defect; `peer` says who is at the other end of a connection."""

    def __init__(
        self,
        desk: Desk,
        log: Callable[[str], None],
        peer: Callable[[socket.socket], Peer] = peer_of,
        *,
        policies: PolicyDesk,
    ) -> None:
        self._desk = desk
        self._policies = policies
        self._log = log
        self._peer = peer

    def application(self) -> web.Application:
        """Return the application, to be served on a Unix socket."""
        application = web.Application(middlewares=[self._answer], client_max_size=MOST_BODY)
        desk, one = self._desk, f"{PREFIX}/guests/{{name}}"
        acts: dict[str, Act] = {
            "stop": desk.stop,
            "kill": desk.kill,
            "pause": desk.pause,
            "resume": desk.resume,
            "restart": desk.restart,
        }
        application.add_routes(
            [
                web.post(f"{PREFIX}/guests", self._start),
                web.get(f"{PREFIX}/guests", self._guests, allow_head=False),
                web.get(one, self._guest, allow_head=False),
                web.delete(one, self._act(desk.remove)),
                *(web.post(f"{one}/{word}", self._act(act)) for word, act in acts.items()),
                web.post(f"{one}/move", self._reseat(MoveRequest, desk.move)),
                web.post(f"{one}/resize", self._reseat(ResizeRequest, desk.resize)),
                web.get(f"{one}/explain", self._explain, allow_head=False),
                web.post(f"{PREFIX}/policy", self._policy),
                web.get(f"{PREFIX}/cores", self._cores, allow_head=False),
                web.get(f"{PREFIX}/events", self._events, allow_head=False),
                *payload_routes(desk.payloads, self._handles),
            ]
        )
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a handler answer; whatever it raises becomes an answer too."""
        try:
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
        return _json(body, status)

    def _caller(self, request: web.Request) -> Peer:
        connection = None if request.transport is None else request.transport.get_extra_info("socket")
        if connection is None:
            raise ConnectionResetError
        return self._peer(connection)

    async def _start(self, request: web.Request) -> web.StreamResponse:
        peer, wanted = self._caller(request), await _body(request, StartRequest)
        act = self._desk.foresee if wanted.dry_run else self._desk.start
        return _json(await act(peer, wanted))

    async def _policy(self, request: web.Request) -> web.StreamResponse:
        peer, wanted = self._caller(request), await _body(request, PolicyRequest)
        return _json(await self._policies.apply(peer, wanted))

    async def _guests(self, request: web.Request) -> web.StreamResponse:
        return _json({"guests": self._desk.guests(self._caller(request))})

    async def _guest(self, request: web.Request) -> web.StreamResponse:
        return _json(self._desk.guest(self._caller(request), request.match_info["name"]))

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        return _json(self._desk.explain(self._caller(request), request.match_info["name"]))

    async def _cores(self, request: web.Request) -> web.StreamResponse:
        return _json({"cores": self._desk.cores(self._caller(request))})

    def _act(self, act: Act) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            name = request.match_info["name"]
            await act(self._caller(request), name)
            return _json({"name": name})

        return handle

    def _reseat(self, body: type[_T], ask: Callable[[Peer, str, _T], Awaitable[object]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            peer, wanted = self._caller(request), await _body(request, body)
            return _json(await ask(peer, request.match_info["name"], wanted))

        return handle

    def _handles(self, body: type[Any] | None, ask: Callable[[Peer, Any], Awaitable[object]]) -> Handler:
        """Return what answers a caller with what `ask` says, given the request's body if it has one."""

        async def handle(request: web.Request) -> web.StreamResponse:
            peer = self._caller(request)
            return _json(await ask(peer, None if body is None else await _body(request, body)))

        return handle

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Write events as lines of JSON, as fast as the caller takes them."""
        peer, since, follow = self._caller(request), _number(request, "since"), _number(request, "follow") == 1
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async for piece in self._desk.events.read(since, follow=follow):
            lines = [
                msgspec.json.encode(each) + _NEWLINE
                for each in piece
                if not isinstance(each, Event) or peer.may_do_everything or peer.sees(each.owner)
            ]
            if lines:
                await response.write(b"".join(lines))
            await asyncio.sleep(0)  # a reader with much to catch up on lets the scheduler in between
        await response.write_eof()
        return response


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
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"{key}={text[:40]!r} is not possible; it is a number, 0 or more")
    return int(text)

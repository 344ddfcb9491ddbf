"""The paths of the payload store, for `api`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from orchestrator.service.callers import Peer
from orchestrator.service.messages import PREFIX
from orchestrator.service.payload_desk import AddRequest, PayloadDesk, Reference

Ask = Callable[[Peer, Any], Awaitable[object]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Handles = Callable[[type[Any] | None, Ask], Handler]
"""Makes a handler of something that is asked: the kind of its body, if it has one, and what answers it."""


def payload_routes(desk: PayloadDesk, handles: Handles) -> Sequence[web.RouteDef]:
    """Return the routes."""
    base = f"{PREFIX}/payloads"
    return [
        web.get(base, handles(None, lambda peer, _: desk.listed(peer)), allow_head=False),
        web.post(base, handles(AddRequest, desk.add)),
        web.post(f"{base}/remove", handles(Reference, lambda peer, which: desk.remove(peer, which.reference))),
        web.post(f"{base}/verify", handles(Reference, lambda peer, which: desk.verify(peer, which.reference))),
        web.post(f"{base}/gc", handles(None, lambda peer, _: desk.collect(peer))),
        web.get(f"{base}/shares", handles(None, lambda peer, _: desk.shares(peer)), allow_head=False),
    ]

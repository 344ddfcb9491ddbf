"""What answers the payload store's routes, for `api`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from orchestrator.service.callers import Peer
from orchestrator.service.payload_desk import AddRequest, PayloadDesk, Reference

Ask = Callable[[Peer, Any], Awaitable[object]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Handles = Callable[[type[Any] | None, Ask], Handler]
"""Makes a handler of something that is asked: the kind of its body, if it has one, and what answers it."""


def payload_handlers(desk: PayloadDesk, handles: Handles) -> dict[str, Handler]:
    """Return what answers each of the store's routes, by the route's name."""
    return {
        "payloads": handles(None, lambda peer, _: desk.listed(peer)),
        "payload-add": handles(AddRequest, desk.add),
        "payload-remove": handles(Reference, lambda peer, which: desk.remove(peer, which.reference)),
        "payload-verify": handles(Reference, lambda peer, which: desk.verify(peer, which.reference)),
        "payload-gc": handles(None, lambda peer, _: desk.collect(peer)),
        "payload-shares": handles(None, lambda peer, _: desk.shares(peer)),
    }

"""What callers may ask about guests' states: save, restore, snapshots, templates and clones."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from orchestrator.contexts import Contexts
from orchestrator.core.context import Kind
from orchestrator.core.model import GUEST_NAME, GUEST_NAME_IN_WORDS
from orchestrator.engine import Engine
from orchestrator.errors import RefusedError, UsageError
from orchestrator.service.callers import Peer
from orchestrator.service.desk import Desk
from orchestrator.service.messages import (
    MOST_GUESTS,
    CloneRequest,
    Clones,
    Kept,
    NameRequest,
    NoSuchGuestError,
    Removed,
    States,
    StateView,
)
from orchestrator.shelf import Held

_T = TypeVar("_T")

Tells = Callable[[Peer, web.Request], Awaitable[object]]
"""Does what a request asks for a caller, and returns what to answer."""


class StateDesk:
    """Takes what callers ask; each touches only what is his."""

    def __init__(self, desk: Desk, engine: Engine, contexts: Contexts) -> None:
        self._desk = desk
        self._engine = engine
        self._contexts = contexts

    def handlers(self) -> dict[str, Tells]:
        """Return what answers each of the routes, by the route's name."""
        return {
            "save": self._save,
            "snapshot": self._snapshot,
            "revert": self._revert,
            "template": self._template,
            "restore": self._restore,
            "clone": self._clone,
            "states": self._list,
            "state-remove": self._remove,
            "gc": self._gc,
        }

    async def _save(self, peer: Peer, request: web.Request) -> Kept:
        name, to = self._guest(peer, request), await _as(request)
        await self._desk.carry_out(self._contexts.save(name, to or name), "save", name)
        return Kept(name, to or name)

    async def _snapshot(self, peer: Peer, request: web.Request) -> Kept:
        name, to = self._guest(peer, request), await _as(request)
        to = to or f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
        await self._desk.carry_out(self._contexts.snapshot(name, to), "snapshot", name)
        return Kept(name, to)

    async def _template(self, peer: Peer, request: web.Request) -> Kept:
        name, to = self._guest(peer, request), await _as(request)
        await self._desk.carry_out(self._contexts.template(name, to or name), "template", name)
        return Kept(name, to or name)

    async def _revert(self, peer: Peer, request: web.Request) -> Kept:
        name, to = request.match_info["name"], request.match_info["snapshot"]
        await self._desk.carry_out(self._contexts.revert(name, to, _owner(peer)), "revert", name)
        return Kept(name, to)

    async def _restore(self, peer: Peer, request: web.Request) -> Kept:
        name = request.match_info["name"]
        guest = await self._desk.carry_out(self._contexts.restore(name, _owner(peer)), "restore", name)
        return Kept(guest, name)

    async def _clone(self, peer: Peer, request: web.Request) -> Clones:
        name = request.match_info["name"]
        wanted = _read(await request.read(), CloneRequest)
        if wanted.names and wanted.count not in (1, len(wanted.names)):
            raise UsageError(f"clone: {wanted.count} clones and {len(wanted.names)} names do not go together")
        if not 1 <= max(wanted.count, len(wanted.names)) <= MOST_GUESTS:
            raise UsageError(f"clone: ask for 1 to {MOST_GUESTS} clones at once")
        for each in wanted.names:
            _require_name(each)
        act = self._contexts.clone(name, wanted.count, wanted.names, _owner(peer), staged=wanted.staged)
        cloned = await self._desk.carry_out(act, "clone", name)
        return Clones(name, cloned.names, cloned.notes)

    async def _list(self, peer: Peer, request: web.Request) -> States:
        held = await self._contexts.shelf.held(_kind(request), _owner(peer))
        return States(tuple([await self._view(each) for each in held]))

    async def _remove(self, peer: Peer, request: web.Request) -> Removed:
        kind, name = _kind(request), request.match_info["name"]
        await self._desk.carry_out(self._contexts.remove(kind, name, _owner(peer)), "remove", name)
        return Removed((name.rpartition("@")[2],))

    async def _gc(self, peer: Peer, _request: web.Request) -> Removed:
        if not peer.may_do_everything:
            raise RefusedError("gc: removes what others have left too; only root and the daemon's own user may do this")
        return Removed(tuple(await self._contexts.gc()))

    async def _view(self, held: Held) -> StateView:
        context, shelf = held.context, self._contexts.shelf
        taken = datetime.datetime.fromtimestamp(context.taken_at / 1e9, datetime.UTC)
        return StateView(
            name=context.name.rpartition("@")[2],
            guest=context.guest,
            owner=context.owner,
            architecture=context.architecture,
            machine=context.machine,
            qemu=context.qemu,
            taken_at=f"{taken:%Y-%m-%dT%H:%M:%SZ}",
            bytes=await shelf.files.size(held.directory),
            misfits=await shelf.misfits(held),
        )

    def _guest(self, peer: Peer, request: web.Request) -> str:
        """Return the guest's name, if it is one of the caller's."""
        name = request.match_info["name"]
        guest = self._engine.guests.get(name)
        if guest is None:
            raise NoSuchGuestError(f"{name[:64]}: there is no such guest; `orchestrator ps` lists those that are")
        peer.require(name, guest.domain.owner)
        return name


def _owner(peer: Peer) -> str | None:
    """Return whose states the caller may name: None for everybody's."""
    return None if peer.may_do_everything else peer.user


def _kind(request: web.Request) -> Kind:
    try:
        return Kind(request.match_info["kind"])
    except ValueError:
        raise UsageError(f"{request.match_info['kind'][:40]}: no kind of state; there are {', '.join(Kind)}") from None


async def _as(request: web.Request) -> str | None:
    name = _read(await request.read(), NameRequest).name
    if name is not None:
        _require_name(name)
    return name


def _require_name(name: str) -> None:
    """Raise UsageError for what cannot be called so."""
    if not GUEST_NAME.fullmatch(name):
        raise UsageError(f"{name[:70]!r}: is not possible as a name; it is {GUEST_NAME_IN_WORDS}")


def _read(text: bytes, kind: type[_T]) -> _T:
    """Read a request's body; an empty one asks for nothing in particular."""
    try:
        return msgspec.json.decode(text or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"the request's body is not valid: {error}") from None

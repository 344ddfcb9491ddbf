"""Who comes in: bans, rates, the admin group, and acting for another. What is done inside is `desk`'s."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn, Protocol

from orchestrator.core.emergency import REFUSED
from orchestrator.errors import UsageError
from orchestrator.service.callers import Peer, is_member, user_name, user_numbers
from orchestrator.service.limits import Buckets
from orchestrator.service.messages import BannedError, ForbiddenError, TooManyError

_KNOWN_FOR = 10.0
"""Seconds for which the databases' word on a user is believed."""

_MOST_KNOWN = 1024


@dataclass(frozen=True, slots=True)
class Ban:
    """Why a user gets nothing, and until when; None: until somebody lifts the ban."""

    reason: str
    until: datetime | None = None


class Bans(Protocol):
    """Knows who is banned: the policy does, and whoever else may ban users while the daemon runs."""

    def of(self, user: str, /) -> Ban | None:
        """Return the ban that is on a user now, if there is one."""


class Nobody:
    """Implements `Bans` where nobody is banned."""

    def of(self, _user: str) -> Ban | None:
        """Return None."""
        return None


class Door:
    """Lets callers in, each as who he is. `admin_group` names the group whose members may act for everybody.

    `lockdown` says why nobody may do anything but look, if that is so. `record` writes into the journal.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        admin_group: Callable[[], str] = str,
        bans: Bans | None = None,
        buckets: Buckets | None = None,
        lockdown: Callable[[], str | None] = lambda: None,
        record: Callable[[str, Mapping[str, Any]], Awaitable[object]] | None = None,
    ) -> None:
        self._clock = clock
        self._admin_group = admin_group
        self._bans = bans or Nobody()
        self._lockdown = lockdown
        self._record = record
        self._buckets = buckets or Buckets(clock)
        self._known: dict[tuple[int, str], tuple[float, str, bool]] = {}

    async def admit(self, peer: Peer, wanted_user: str | None = None) -> Peer:
        """Return who asks, with his name and whether he is an admin; as `wanted_user`, if he may act for that one.

        BannedError, TooManyError or ForbiddenError say why he is not let in. Root and the daemon's own user always are.
        """
        if peer.is_trusted:
            caller = replace(peer, name=peer.user)
        else:
            wait = self._buckets.take(peer.uid)
            if wait:
                raise TooManyError("you ask for too much at once", wait)
            caller = await self._recognized(peer)
            self.require_no_ban(caller.user)
        return caller if wanted_user is None else await self._acting(caller, wanted_user)

    def require_no_ban(self, user: str) -> None:
        """Raise BannedError if a ban is on this user."""
        ban = self._bans.of(user)
        if ban is not None:
            until = "" if ban.until is None else f" until {ban.until:%Y-%m-%d %H:%M}"
            raise BannedError(f"{user} is banned{until}: {ban.reason}")

    def require_no_lockdown(self) -> None:
        """Raise ForbiddenError, whoever asks, while the emergency console has everything locked."""
        why = self._lockdown()
        if why is not None:
            raise ForbiddenError(
                f"lockdown by the emergency console: {why}; `orchestrator admin lockdown --lift` ends it"
            )

    async def refuse_emergency(self, caller: Peer, path: str) -> NoReturn:
        """Record that somebody asked for an emergency act over the API, and raise ForbiddenError."""
        why = "emergency acts are not the API's"
        if self._record is not None:
            by = {"uid": caller.uid, "pid": caller.pid, "user": caller.user}
            await self._record(REFUSED, {"why": why, "by": by, "path": path[:200]})
        raise ForbiddenError(f"{why}: `orchestrator admin`, as root at a console of this machine")

    async def _recognized(self, peer: Peer) -> Peer:
        """Look a caller up, which may block, but not for each of his requests anew."""
        key, now = (peer.uid, self._admin_group()), self._clock()
        until, name, admin = self._known.get(key, (now, "", False))
        if until <= now:
            name, admin = await asyncio.to_thread(lambda: (user_name(peer.uid), is_member(*key)))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = now + _KNOWN_FOR, name, admin
        return replace(peer, name=name, admin=admin)

    async def _acting(self, caller: Peer, wanted: str) -> Peer:
        """Return a caller as whom he acts for: he sees and may do what that one may, and no more."""
        if wanted == caller.user:
            return caller
        if not caller.may_do_everything:
            raise ForbiddenError(f"you are {caller.user}, and may not act for {wanted[:64]}; an admin may")
        numbers = await asyncio.to_thread(user_numbers, wanted)
        if numbers is None:
            raise UsageError(f"{wanted[:64]}: this host has no such user")
        name = await asyncio.to_thread(user_name, numbers[0])
        acting = Peer(caller.pid, *numbers, name, by=caller.user)
        if acting.is_trusted and not caller.is_trusted:
            raise ForbiddenError(f"you are {caller.user}, and nobody but root acts for {acting.user}")
        self.require_no_ban(acting.user)
        return acting

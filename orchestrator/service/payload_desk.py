"""What callers may ask of the payload store, each by what the kernel says of him. Nothing here knows of HTTP.

Where a payload is not for the caller it does not exist: errors, lists, sums and memory are those of a store without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from orchestrator.core.model import GuestSpec
from orchestrator.core.payloads import Catalogue, Payload
from orchestrator.errors import UsageError
from orchestrator.payload_ports import NewPayload, Payloads
from orchestrator.service.callers import Peer
from orchestrator.service.messages import ForbiddenError, InUseError


@dataclass(frozen=True, slots=True)
class Use:
    """A guest that maps a payload, or will, in `huge` pages or not; `pid` is None while it has no process."""

    guest: str
    owner: str
    digest: str
    pid: int | None
    huge: bool = False


def use_of(spec: GuestSpec, owner: str, pid: int | None) -> Iterator[Use]:
    """Yield the payload that a guest maps, if it does."""
    if spec.payload is not None and spec.payload.digest is not None:
        yield Use(spec.name, owner, spec.payload.digest, pid, spec.hugepages is not None)


class AddRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Add the file at this absolute path, which the caller may read."""

    path: str
    name: str
    public: bool = False


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload: its name, OWNER/NAME, or its digest."""

    reference: str


class PayloadView(msgspec.Struct, frozen=True, kw_only=True):
    """A payload as `payload ls` shows it; `guests` are those of the caller's that map it."""

    name: str
    owner: str
    digest: str
    size: int
    public: bool
    added_at: int
    guests: tuple[str, ...] = ()


class PayloadList(msgspec.Struct, frozen=True):
    """What the caller may use, how many bytes his own have, and how many they may."""

    payloads: tuple[PayloadView, ...]
    used: int
    quota: int


class ShareView(msgspec.Struct, frozen=True, kw_only=True):
    """What one guest maps of a payload, in bytes; `resident` and the rest are of what is in memory (proc(5), smaps)."""

    guest: str
    payload: str
    digest: str
    writable: bool
    mapped: int
    resident: int
    proportional: int
    shared: int
    private_clean: int
    private_dirty: int


class Shares(msgspec.Struct, frozen=True):
    """What the caller's guests map, by payload and guest."""

    shares: tuple[ShareView, ...]


class Collected(msgspec.Struct, frozen=True):
    """What `payload gc` removed."""

    files: int
    bytes: int


class PayloadDesk:
    """Payloads for callers. `uses` tells who maps them, `quota` how many bytes a user may keep."""

    def __init__(self, payloads: Payloads, uses: Callable[[], Iterable[Use]], quota: Callable[[str], int]) -> None:
        self._payloads = payloads
        self._uses = uses
        self._quota = quota

    async def listed(self, peer: Peer) -> PayloadList:
        """Show what the caller may use, by owner and name; the host's administrator sees all."""
        catalogue = await self._payloads.catalogue()
        rows = tuple(self._view(peer, payload) for payload in _visible(catalogue, peer))
        return PayloadList(rows, catalogue.used(peer.user), self._quota(peer.user))

    async def add(self, peer: Peer, request: AddRequest) -> PayloadView:
        """Add a file by the caller's rights, as his own."""
        if not request.path.startswith("/"):
            raise UsageError(f"{request.path[:60]!r} is no absolute path")
        wanted = NewPayload(
            path=request.path,
            user=(peer.uid, peer.gid),
            owner=peer.user,
            name=request.name,
            public=request.public,
            quota=self._quota(peer.user),
        )
        return self._view(peer, await self._payloads.add(wanted))

    async def remove(self, peer: Peer, reference: str) -> PayloadView:
        """Take out a payload of the caller's that no guest maps."""
        payload = await self._find(peer, reference)
        if not peer.sees(payload.owner):
            raise ForbiddenError(f"{reference}: this payload is {payload.owner}'s, and you are {peer.user}")
        users = [use for use in self._uses() if _may_map(use, payload)]
        if users:
            own = sorted({use.guest for use in users if peer.sees(use.owner)})
            others = ["guests of others"] if not all(peer.sees(use.owner) for use in users) else []
            raise InUseError(f"{reference}: is in use by {', '.join([*own, *others])}; stop them first")
        await self._payloads.remove(payload)
        return self._view(peer, payload)

    async def verify(self, peer: Peer, reference: str) -> PayloadView:
        """Read a payload's file. FailedError says how it differs from what was added."""
        payload = await self._find(peer, reference)
        await self._payloads.verify(payload)
        return self._view(peer, payload)

    async def collect(self, peer: Peer) -> Collected:
        """Remove what nobody's payload is; for the administrator, since it tells of everybody's."""
        if not peer.may_do_everything:
            raise ForbiddenError("gc: what is left behind may be anybody's; this is for root and the daemon's own user")
        return Collected(*await self._payloads.collect({use.digest for use in self._uses() if use.huge}))

    async def shares(self, peer: Peer) -> Shares:
        """Show what the caller's guests map, and how much of that is theirs alone."""
        catalogue = await self._payloads.catalogue()
        names: dict[str, list[str]] = {}
        for each in _visible(catalogue, peer):
            names.setdefault(each.digest, []).append(f"{each.owner}/{each.name}")
        pids = {use.guest: use.pid for use in self._uses() if peer.sees(use.owner) and use.pid is not None}
        rows = []
        for guest, share in await self._payloads.shares(pids):
            digest = share.file.rpartition("/")[2]
            rows.append(
                ShareView(
                    guest=guest,
                    payload=", ".join(names.get(digest, ())),
                    digest=digest,
                    writable=share.writable,
                    mapped=share.mapped,
                    resident=share.resident,
                    proportional=share.proportional,
                    shared=share.shared,
                    private_clean=share.private_clean,
                    private_dirty=share.private_dirty,
                )
            )
        return Shares(tuple(sorted(rows, key=lambda row: (row.digest, row.guest))))

    async def _find(self, peer: Peer, reference: str) -> Payload:
        catalogue = await self._payloads.catalogue()
        return (catalogue.find_any if peer.may_do_everything else catalogue.find)(peer.user, reference)

    def _view(self, peer: Peer, payload: Payload) -> PayloadView:
        guests = sorted({use.guest for use in self._uses() if _may_map(use, payload) and peer.sees(use.owner)})
        return PayloadView(
            name=payload.name,
            owner=payload.owner,
            digest=payload.digest,
            size=payload.size,
            public=payload.public,
            added_at=payload.added_at,
            guests=tuple(guests),
        )


def _visible(catalogue: Catalogue, peer: Peer) -> tuple[Payload, ...]:
    return catalogue.payloads if peer.may_do_everything else catalogue.visible(peer.user)


def _may_map(use: Use, payload: Payload) -> bool:
    return use.digest == payload.digest and (payload.public or use.owner == payload.owner)

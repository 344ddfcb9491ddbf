"""Payloads: read-only images that guests map. Whose they are, who may use them, how much anybody may keep.

Decisions alone; the files are `payloads.store`'s. A private payload is its owner's: for everybody else it does not
exist, and no answer, no quota and no shared page tells that it does (`Catalogue.place`). Catalogues are lists: all is
O(payloads), of which each owner has at most `MOST_PAYLOADS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.errors import Fault, RefusedError, UsageError

MOST_PAYLOADS = 1000
"""How many payloads an owner may have."""

LEAST_FILE = 4096
"""A page, in bytes: the least that can be mapped."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class PayloadMap(StrEnum):
    """How a payload is mapped: as RAM, of which the guest writes on copies, or as a window that it only reads."""

    RAM = "ram"
    WINDOW = "window"


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadWish:
    """The payload that a guest maps: by name, ``OWNER/NAME`` or SHA-256; the digest is noted as soon as it is known."""

    map: PayloadMap
    name: str | None = None
    digest: str | None = None

    @property
    def reference(self) -> str:
        """Return what the definition calls it."""
        return self.name or self.digest or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A payload as the store keeps it: `size` bytes with this SHA-256, added at a time in nanoseconds since 1970."""

    name: str
    owner: str
    digest: str
    size: int
    public: bool
    added_at: int

    @property
    def length(self) -> int:
        """Return the length of its file: the next power of two, as a PCI device needs it; what is added is zero."""
        return max(LEAST_FILE, 1 << (self.size - 1).bit_length())


Place = tuple[str | None, str]
"""What a file is kept by: whose it is (None for everybody's), and its digest."""


@dataclass(frozen=True, slots=True)
class MappedPayload:
    """A payload's file, whose content was just found to be right; `stamp` changes whenever anybody writes to it."""

    digest: str
    path: str
    length: int
    stamp: tuple[int, ...]


def name_trouble(name: str) -> str:
    """Say why a payload cannot have this name; empty if it can."""
    if _NAME.fullmatch(name):
        return ""
    return f"{name[:70]!r} is no payload's name; it is 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', not '.-_' first"


def reference_trouble(reference: str) -> str:
    """Say why nothing can be meant by this reference; empty if something can."""
    owner, slash, name = reference.rpartition("/")
    if is_digest(reference) or (not name_trouble(name) and (owner or not slash) and "/" not in owner):
        return ""
    return f"{reference[:70]!r} is no payload; it is a name, OWNER/NAME, or a SHA-256 in 64 lower-case hex digits"


def is_digest(text: str) -> bool:
    """Say whether this is a SHA-256 as we write it; no name is as long."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All payloads of a store, by owner and name."""

    payloads: tuple[Payload, ...] = ()

    def visible(self, user: str) -> tuple[Payload, ...]:
        """Return what this user may use: his own, and what is public."""
        return tuple(each for each in self.payloads if each.public or each.owner == user)

    def used(self, owner: str) -> int:
        """Return how many bytes an owner's payloads have: each content once, whoever else has the same."""
        return sum({each.digest: each.size for each in self.payloads if each.owner == owner}.values())

    def find(self, user: str, reference: str) -> Payload:
        """Return what a user means by a reference, his own before others'. UsageError if there is no such payload."""
        return self._one(user, reference, self.visible(user))

    def find_any(self, user: str, reference: str) -> Payload:
        """Return what the host's administrator means, who sees private payloads too."""
        return self._one(user, reference, self.payloads)

    def _one(self, user: str, reference: str, among: tuple[Payload, ...]) -> Payload:
        trouble = reference_trouble(reference)
        if trouble:
            raise UsageError(trouble)
        meant = [each for each in among if _is_meant(each, reference)]
        best = [each for each in meant if each.owner == user] or meant
        if not best:
            raise UsageError(f"{reference}: you have no such payload; `orchestrator payload ls` lists what you may use")
        if len({each.digest for each in best}) > 1 and not is_digest(reference):
            names = ", ".join(f"{each.owner}/{each.name}" for each in best)
            raise UsageError(f"{reference}: several have a payload of this name; write one of {names}")
        return best[0]

    def admit(self, payload: Payload, quota: int) -> Catalogue:
        """Return the catalogue with a payload, which becomes public or private if it is there already.

        RefusedError if the name has another content, or the owner's quota, in bytes, does not allow it.
        """
        own = {each.name: each for each in self.payloads if each.owner == payload.owner}
        before = own.get(payload.name)
        if before is not None and before.digest != payload.digest:
            raise RefusedError(
                f"{payload.name}: you have a payload of this name with other content; "
                f"`orchestrator payload rm {payload.name}` first, or use another name"
            )
        if before is None and len(own) >= MOST_PAYLOADS:
            raise RefusedError(f"{payload.name}: you have {MOST_PAYLOADS} payloads, which is the most; remove some")
        if payload.digest not in {each.digest for each in own.values()}:
            self.require_room(payload.owner, payload.name, payload.size, quota)
        added = payload if before is None else replace(before, public=payload.public)
        rest = [each for each in self.payloads if each is not before]
        return Catalogue(tuple(sorted((*rest, added), key=lambda each: (each.owner, each.name))))

    def require_room(self, owner: str, name: str, size: int, quota: int) -> None:
        """Raise RefusedError if the owner may not have so many bytes more."""
        used = self.used(owner)
        if used + size > quota:
            raise RefusedError(
                f"{name}: payloads of {owner}: wanted {size} bytes, available {max(0, quota - used)} of {quota}; "
                "`orchestrator payload rm` gives room"
            )

    def without(self, payload: Payload) -> Catalogue:
        """Return the catalogue without this payload."""
        return Catalogue(tuple(each for each in self.payloads if each != payload))

    def place(self, payload: Payload) -> Place:
        """Return by what the file of a payload is kept: each content once, if anybody has it publicly.

        Of what is private each owner has a file of his own: if owners shared its pages, each could tell from his own
        memory's accounts, or by timing, that another has it too.
        """
        public = any(each.public and each.digest == payload.digest for each in self.payloads)
        return (None if public else payload.owner), payload.digest

    def places(self) -> frozenset[Place]:
        """Return all files that there must be."""
        public = {each.digest for each in self.payloads if each.public}
        return frozenset((None if each.digest in public else each.owner, each.digest) for each in self.payloads)


def _is_meant(payload: Payload, reference: str) -> bool:
    if is_digest(reference):
        return payload.digest == reference
    owner, slash, name = reference.rpartition("/")
    return payload.name == name and (not slash or payload.owner == owner)


def fit_trouble(wish: PayloadWish, payload: Payload, memory: int) -> Iterator[str]:
    """Say why a guest with so many bytes of memory cannot map a payload as it wishes."""
    if wish.digest is not None and payload.digest != wish.digest:
        yield f"{wish.name} has the digest {payload.digest} now; drop 'digest', or name a payload that has it"
    if wish.map is PayloadMap.RAM and not payload.size <= memory <= payload.length:
        yield (
            f"{wish.reference} has {payload.size} bytes, and memory {memory}; a RAM image is as long as the memory: "
            f"`truncate --size {memory} FILE` before it is added, or another 'memory'"
        )


def page_faults(payload: PayloadWish | None, hugepages: int | None) -> Iterator[Fault]:
    """Yield what is wrong with a definition's pages."""
    if payload is not None and payload.map is PayloadMap.RAM and hugepages is not None:
        yield Fault(
            "the guest's RAM is the payload's own pages, of which it writes on copies, and each guest would need as "
            "many huge pages in store as it has RAM; drop hugepages, or take map = 'window', which has them too",
            "hugepages",
        )


def reference_faults(name: str | None, digest: str | None) -> Iterator[Fault]:
    """Yield what is wrong with how a definition names its payload."""
    if name is None and digest is None:
        yield Fault("missing; write the payload's name, or its 'digest'", "name")
    if name is not None and (trouble := reference_trouble(name)):
        yield Fault(trouble, "name")
    if digest is not None and not is_digest(digest):
        yield Fault(f"{digest[:60]!r} is no SHA-256; it is 64 lower-case hex digits", "digest")

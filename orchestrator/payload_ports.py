"""The port through which payloads are reached, and what goes in. The other ports are in `ports`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.payloads import Catalogue, MappedPayload, Payload
from orchestrator.core.smaps import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayload:
    """A file to be added: absolute path, by the rights of `user` (uid, gid; None: ours), within a quota in bytes."""

    path: str
    user: tuple[int, int] | None
    owner: str
    name: str
    public: bool
    quota: int


class Payloads(Protocol):
    """The payload store. What takes long is done by a process on the service core, one thing at a time."""

    async def catalogue(self) -> Catalogue:
        """Return all payloads."""

    async def add(self, wanted: NewPayload) -> Payload:
        """Add a file, or return what is there if it has this owner, name and content; `public` is as wanted then.

        RefusedError for a quota or a name that is taken, UsageError for a file that its owner may not read.
        """

    async def remove(self, payload: Payload) -> None:
        """Take a payload out; fine if it is not there. Who maps it goes on."""

    async def verify(self, payload: Payload) -> None:
        """Read its file anew. FailedError says how it differs from what was added."""

    async def check(self, owner: str, digest: str, pages: int | None = None) -> MappedPayload:
        """Return the file of a payload for an owner's guest to map, whose content is that of the digest.

        If so wanted it is of huge `pages` of so many bytes; HostError if they cannot be had.

        UsageError if he has none; FailedError if it is not what was added. It is read unless it was before, and nobody
        can have written to it since.
        """

    def is_unchanged(self, mapped: MappedPayload) -> bool:
        """Look whether anybody wrote to the file, or put another in its place, since it was checked."""

    async def collect(self, used: Collection[str] = ()) -> tuple[int, int]:
        """Remove what was left behind by who was killed; return how many files, and bytes.

        Also what is in huge pages, but for the digests that are `used`.
        """

    async def shares(self, processes: Mapping[str, int]) -> Sequence[tuple[str, Share]]:
        """Return what each of these processes (by guest's name) maps of the store; those that have gone map nothing."""

"""A payload store in memory: `content` is what its files hold, which a test may change."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from orchestrator.core.payloads import Catalogue, MappedPayload, Payload, Place, name_trouble
from orchestrator.core.smaps import Share
from orchestrator.errors import FailedError, UsageError
from orchestrator.payload_ports import NewPayload
from tests.fakes.host import FakeHost


class FakePayloads:
    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self._catalogue = Catalogue()
        self.sources: dict[str, bytes] = {}
        self.content: dict[Place, bytes] = {}
        self.reads = 0
        self.kept: set[str] = set()
        self._known: dict[Place, bytes] = {}

    async def catalogue(self) -> Catalogue:
        return self._catalogue

    async def add(self, wanted: NewPayload) -> Payload:
        if name_trouble(wanted.name):
            raise UsageError(name_trouble(wanted.name))
        content = self.sources.get(wanted.path)
        if not content:
            raise UsageError(f"{wanted.path}: cannot be opened, or is empty")
        payload = Payload(
            name=wanted.name,
            owner=wanted.owner,
            digest=hashlib.sha256(content).hexdigest(),
            size=len(content),
            public=wanted.public,
            added_at=1,
        )
        self._become(self._catalogue.admit(payload, wanted.quota), content)
        added = self._catalogue.find(wanted.owner, f"{wanted.owner}/{wanted.name}")
        self.content[self._catalogue.place(added)] = content
        return added

    async def remove(self, payload: Payload) -> None:
        content = self.content.get(self._catalogue.place(payload), b"")
        self._become(self._catalogue.without(payload), content)

    async def verify(self, payload: Payload) -> None:
        self.reads += 1
        content = self.content.get(self._catalogue.place(payload), b"")
        if hashlib.sha256(content).hexdigest() != payload.digest:
            raise FailedError(f"{payload.owner}/{payload.name}: its file is not what was added")

    async def check(self, owner: str, digest: str, pages: int | None = None) -> MappedPayload:
        payload = self._catalogue.find(owner, digest)
        place = self._catalogue.place(payload)
        content = self.content.get(place, b"")
        if self._known.get(place) != content:
            await self.verify(payload)
            self._known[place] = content
        self._host.trace.append(f"check payload {payload.name}")
        path = f"/payloads/{payload.owner}/{digest}"
        if pages is not None:
            path = f"/dev/hugepages/{pages}{path}"
        return MappedPayload(digest, path, max(payload.length, pages or 0), (hash(content),))

    def is_unchanged(self, mapped: MappedPayload) -> bool:
        return any((hash(content),) == mapped.stamp for content in self.content.values())

    async def collect(self, used: Collection[str] = ()) -> tuple[int, int]:
        self.kept = set(used)
        return 0, 0

    async def shares(self, processes: Mapping[str, int]) -> Sequence[tuple[str, Share]]:
        running = {domain.pid: domain for domain in self._host.domains.values() if domain.pid is not None}
        return [(name, _share(name)) for name, pid in sorted(processes.items()) if pid in running]

    def _become(self, catalogue: Catalogue, content: bytes) -> None:
        """Have these payloads; `content` is that of places that are new."""
        self._catalogue = catalogue
        self.content = {place: self.content.get(place, content) for place in catalogue.places()}


def _share(name: str) -> Share:
    return Share(
        file=f"/payloads/{name}",
        writable=False,
        mapped=4096,
        resident=4096,
        proportional=4096,
        shared=0,
        private_clean=4096,
        private_dirty=0,
    )

"""Payloads through a process of its own for each thing that takes long: it moves to the service core before it begins.

The process is started with the caller's words on its standard input and answers on its standard output, both JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from orchestrator.core.payloads import Catalogue, MappedPayload, Payload, Place
from orchestrator.core.smaps import Share
from orchestrator.errors import FailedError, HostError, OrchestratorError, RefusedError, UsageError
from orchestrator.payload_ports import NewPayload

_T = TypeVar("_T")


class Add(msgspec.Struct, frozen=True, tag="add"):
    """Add a file."""

    wanted: NewPayload


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Take a payload out."""

    payload: Payload


class Check(msgspec.Struct, frozen=True, tag="check"):
    """Read a payload's file."""

    payload: Payload


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Have a payload in huge pages of so many bytes."""

    payload: Payload
    pages: int


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    """Remove what was left behind; these digests are mapped."""

    used: tuple[str, ...] = ()


class Look(msgspec.Struct, frozen=True, tag="look"):
    """Read what these processes map."""

    processes: Mapping[str, int]


Order = Add | Remove | Check | Load | Collect | Look
"""What the process is asked for."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it answers: the value, or the error's family and words."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    words: str = ""


class CheckedFile(msgspec.Struct, frozen=True):
    """A file whose content is right; `settled` as long as its stamp stays the same."""

    mapped: MappedPayload
    settled: bool


_FAMILIES = {kind.__name__: kind for kind in (FailedError, HostError, RefusedError, UsageError)}


def failure(error: OrchestratorError) -> Answer:
    """Return the answer that tells of an error."""
    family = next((name for name, kind in _FAMILIES.items() if isinstance(error, kind)), FailedError.__name__)
    return Answer(error=family, words="; ".join(error.lines()))


class Files(Protocol):
    """What of the store is done here, being quick."""

    def catalogue(self) -> Catalogue:
        """Read the index."""


class ServicePayloads:
    """The store behind a `command`, which does one `Order`; what was found right is remembered here, while it lasts."""

    def __init__(self, files: Files, command: Sequence[str], is_unchanged: Callable[[MappedPayload], bool]) -> None:
        self._files = files
        self._command = tuple(command)
        self._unchanged = is_unchanged
        self._settled: dict[Place, MappedPayload] = {}
        self._turn = asyncio.Lock()

    async def catalogue(self) -> Catalogue:
        """Read the index, in another thread."""
        return await asyncio.to_thread(self._files.catalogue)

    async def add(self, wanted: NewPayload) -> Payload:
        """Have a file added."""
        return await self._ask(Add(wanted), Payload)

    async def remove(self, payload: Payload) -> None:
        """Have a payload taken out."""
        await self._ask(Remove(payload), type(None))

    async def verify(self, payload: Payload) -> None:
        """Have a payload's file read, whatever was found before."""
        await self._ask(Check(payload), CheckedFile)

    async def check(self, owner: str, digest: str, pages: int | None = None) -> MappedPayload:
        """Return a payload's file, read if need be."""
        catalogue = await self.catalogue()
        payload = catalogue.find(owner, digest)
        if pages is not None:
            return (await self._ask(Load(payload, int(pages)), CheckedFile)).mapped
        key = catalogue.place(payload)
        if (known := self._still(key)) is not None:
            return known
        async with self._turn:
            if (known := self._still(key)) is not None:  # by who was before us
                return known
            checked = await self._run(Check(payload), CheckedFile)
            if checked.settled:
                self._settled[key] = checked.mapped
            return checked.mapped

    def is_unchanged(self, mapped: MappedPayload) -> bool:
        """Compare the file's stamp."""
        return self._unchanged(mapped)

    async def collect(self, used: Collection[str] = ()) -> tuple[int, int]:
        """Have removed what was left behind."""
        return await self._ask(Collect(tuple(used)), tuple[int, int])

    async def shares(self, processes: Mapping[str, int]) -> Sequence[tuple[str, Share]]:
        """Have the processes' maps read."""
        return await self._ask(Look(processes), list[tuple[str, Share]])

    def _still(self, key: Place) -> MappedPayload | None:
        known = self._settled.get(key)
        if known is not None and not self._unchanged(known):
            del self._settled[key]
            return None
        return known

    async def _ask(self, order: Order, kind: type[_T]) -> _T:
        async with self._turn:
            return await self._run(order, kind)

    async def _run(self, order: Order, kind: type[_T]) -> _T:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, start_new_session=True)
        try:
            text, _ = await process.communicate(msgspec.json.encode(order))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        try:
            answer = msgspec.json.decode(text, type=Answer)
        except msgspec.MsgspecError:
            raise FailedError(
                f"payloads: the process for them ended with {process.returncode}, without a word"
            ) from None
        if answer.error:
            raise _FAMILIES.get(answer.error, FailedError)(answer.words)
        return msgspec.json.decode(answer.value, type=kind)

"""More ports: where guests' states are kept, and which QEMU programs there are to load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.context import Mark
from orchestrator.core.model import Architecture
from orchestrator.core.xml.domain import Accelerator


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A state that is being written: for whom, of which kind (a word of core's), as what, and in which directory."""

    owner: str
    kind: str
    name: str
    directory: str


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A state that is whole: its directory, and its manifest."""

    directory: str
    manifest: str


class StateFiles(Protocol):
    """Where states are kept. What is not published is never offered, and `sweep` removes it."""

    async def begin(self, owner: str, kind: str, name: str) -> Draft:
        """Return a fresh directory to write a state into; RefusedError if there is one of this name."""

    async def copy(self, source: str, target: str) -> None:
        """Make a copy of a file, without its holes."""

    async def forget_window(self, path: str) -> None:
        """Have the state in a file not tell at which address its guest has its window: it could not be loaded.

        FailedError if there is no window in it.
        """

    async def drop(self, path: str) -> None:
        """Remove a file of a state that is being written."""

    async def publish(self, draft: Draft, manifest: str) -> str:
        """Make a state durable, then offer it; return its directory. RefusedError if there is one of this name."""

    async def abandon(self, draft: Draft) -> None:
        """Remove what was written."""

    async def records(self, kind: str, owner: str | None = None) -> Sequence[StateRecord]:
        """Return the states of a kind, of one owner or of all."""

    async def marks(self, paths: Sequence[str]) -> Mapping[str, Mark | None]:
        """Return how these files are; None for those that are not there."""

    async def size(self, directory: str) -> int:
        """Return how many bytes of the disk a state takes."""

    async def remove(self, directory: str) -> None:
        """Remove a state that was published, at once as far as others can see."""

    async def sweep(self) -> Sequence[str]:
        """Remove what others have left unfinished; return what that was."""


@dataclass(frozen=True, slots=True)
class EmulatorFacts:
    """The QEMU program for an architecture here: its path, version and machine types, what executes, on what."""

    program: str
    version: str
    machines: frozenset[str]
    accelerator: Accelerator
    processor: str


class Emulators(Protocol):
    """The QEMU programs of this host."""

    async def facts(self, architecture: Architecture) -> EmulatorFacts:
        """Return what there is for an architecture; HostError if there is nothing."""

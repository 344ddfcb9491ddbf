"""What a start asks for, once its definitions have been read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.model import Architecture
from orchestrator.engine import Guest
from orchestrator.service.messages import StartRequest
from orchestrator.service.views import AcceleratorView


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a start asks for, read and checked, and the accelerator of each architecture."""

    guests: Sequence[Guest]
    accelerators: Mapping[str, AcceleratorView]


class Definitions(Protocol):
    """Reads definitions and looks at the files they name."""

    async def read(self, request: StartRequest, owner: str) -> Wanted:
        """Return the guests of this owner, whose files he can open; raises UsageError with every fault."""

    def pinned(self, owner: str) -> bool:
        """Tell whether files are opened with this owner's rights, since the daemon's are others."""

    def emulator(self, architecture: Architecture) -> str:
        """Return the QEMU program for an architecture."""

    def payload_quota(self, user: str) -> int:
        """Return how many bytes of payloads a user may keep."""

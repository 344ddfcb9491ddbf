"""What callers send and are: definitions, read for whoever is to own the guests, and who is banned."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError
from orchestrator.wiring.definitions import accelerator_for, emulator_path, parse_guests, parse_guests_for, to_run
from orchestrator.wiring.site import user_name

if TYPE_CHECKING:
    from orchestrator.config import ParsedGuest
    from orchestrator.core.model import Architecture
    from orchestrator.core.policy import Policy
    from orchestrator.file_ports import FileOpener
    from orchestrator.service.door import Ban
    from orchestrator.service.messages import StartRequest
    from orchestrator.service.wanted import Wanted


class SentDefinitions:
    """Definitions as callers send them; what they name is opened with the rights of who is to own the guests."""

    def __init__(self, policy: Policy, opener: FileOpener) -> None:
        self.policy = policy
        self._opener = opener

    def go_by(self, policy: Policy) -> None:
        """Read definitions by another policy from now on."""
        self.policy = policy

    async def read(self, request: StartRequest, owner: str) -> Wanted:
        """Return the guests of this owner; raises UsageError with every fault."""
        for each in request.definitions:
            if not Path(each.directory).is_absolute():
                raise UsageError(f"{each.file}: the directory {each.directory[:60]!r} is not an absolute path")
        sources = [(each.text.encode(), each.file, each.directory) for each in request.definitions]
        if self.pinned(owner):
            parsed = await parse_guests_for(sources, owner, self._opener, self.policy.defaults)
        else:
            parsed = await asyncio.to_thread(parse_guests, sources, owner, self.policy.defaults)
        return await asyncio.to_thread(self._to_run, parsed, request.count, owner)

    def pinned(self, owner: str) -> bool:
        """Tell whether files are opened with this owner's rights: not if he may do what this process may."""
        return owner not in {user_name(0), user_name(os.geteuid())}

    def _to_run(self, parsed: Sequence[ParsedGuest], count: int, owner: str) -> Wanted:
        from orchestrator.service.views import AcceleratorView
        from orchestrator.service.wanted import Wanted

        architectures = sorted({guest.spec.architecture for guest in parsed})
        choices = {architecture: accelerator_for(architecture, self.policy) for architecture in architectures}
        guests = to_run(parsed, count, choices, owner, pinned=self.pinned(owner))
        return Wanted(guests, {arch: AcceleratorView(each.accelerator, each.why) for arch, each in choices.items()})

    def payload_quota(self, user: str) -> int:
        """Return how many bytes of payloads a user may keep."""
        return self.policy.payload_quota(user)

    def emulator(self, architecture: Architecture) -> str:
        """Return the QEMU program for an architecture."""
        return emulator_path(architecture)


@dataclass(frozen=True, slots=True)
class BannedByPolicy:
    """Implements `door.Bans` by the policy that is in force."""

    policy: Callable[[], Policy]

    def of(self, user: str, /) -> Ban | None:
        """Return the ban that is on a user now, if there is one."""
        from orchestrator.service.door import Ban

        reason = self.policy().users.banned.get(user)
        return None if reason is None else Ban(reason)

"""What is to be started: a guest's definition with all that it takes, and the state with which it goes on, if any."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.model import GuestSpec
from orchestrator.core.placement import Placement
from orchestrator.core.requests import StartGuest
from orchestrator.core.xml.domain import Accelerator, Domain, RamFile

_UUIDS = uuid.UUID("8b7cf9e2-9c4c-4f0b-9a0a-3d3f0c1f2b6e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The state with which a guest goes on, instead of starting from nothing.

    `state` is the file, `machine` the machine type that it needs, `ram` the file that is its RAM if that is not in the
    state, `overlays` the files that the disks' overlays are copies of, by target. `windowed`: the guest has a window,
    which is not in the state.
    """

    state: str
    machine: str
    ram: RamFile | None = None
    windowed: bool = False
    overlays: Mapping[str, str] = field(default_factory=dict)

    @property
    def skip_shared(self) -> bool:
        """Say whether files in the guest's memory are not part of the state, but go with it."""
        return self.windowed or (self.ram is not None and not self.ram.shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A definition to run: whose it is, its canonical JSON, the QEMU program and accelerator for it.

    `by_policy` is of a guest that a policy run starts, and may stop. If it is `pinned`, the files that it names are
    opened with its owner's rights, which are not those of this process. `disk` is what its writable disks can grow to,
    in bytes; `by_admin` tells that a member of the admin group starts it, for himself or for its owner.
    With an `origin` it goes on from there, once: what is started anew after that starts from nothing.
    """

    spec: GuestSpec
    specification: str
    owner: str
    emulator: str
    accelerator: Accelerator
    by_policy: bool = False
    pinned: bool = False
    disk: int = 0
    by_admin: bool = False

    origin: Origin | None = None
    staged: bool = False

    def request(self) -> StartGuest:
        """Return what asks the scheduler to start it."""
        return StartGuest(spec=self.spec, owner=self.owner, disk=self.disk, by_admin=self.by_admin, staged=self.staged)

    def placed(self, placement: Placement, directory: str) -> Domain:
        """Return the domain of this guest on these cores, with its run directory."""
        return Domain(
            spec=self.spec,
            placement=placement,
            accelerator=self.accelerator,
            owner=self.owner,
            specification=self.specification,
            emulator=self.emulator,
            directory=directory,
            uuid=self.uuid(directory),
            by_policy=self.by_policy,
            pinned=self.pinned,
            disk=self.disk,
            machine=None if self.origin is None else self.origin.machine,
            incoming=self.origin is not None,
            ram_file=None if self.origin is None else self.origin.ram,
            staged=self.staged,
        )

    def uuid(self, directory: str) -> str:
        """Return the uuid of the owner's guest in this directory: the same each time, so its process is known again."""
        return str(uuid.uuid5(_UUIDS, f"{self.owner}:{directory}"))

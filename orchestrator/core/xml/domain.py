"""What is rendered: one guest, placed, with the paths that its monitor, serial port and overlays get."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.arch import TRAITS, ArchitectureTraits
from orchestrator.core.files import GuestFile, guest_files
from orchestrator.core.model import GuestSpec
from orchestrator.core.payloads import MappedPayload
from orchestrator.core.placement import Placement


class Accelerator(StrEnum):
    """What executes the guest's instructions: the processor itself, or QEMU's translator."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class RamFile:
    """A file whose pages are the guest's RAM, as long as that or longer.

    What the guest writes goes to pages of its own, unless `shared`: then to the file.
    """

    path: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """A file that the guest reads, and executes, through a PCI device; `size` in bytes is a power of two."""

    path: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Everything that one domain's XML says.

    `owner` is a user name, `specification` the guest definition as canonical JSON (it travels in the metadata),
    `emulator` the QEMU program's path, `directory` the guest's own run directory, in which all sockets, logs
    and overlays live; `priority` its class among shared guests. `ram_file` is the file behind its RAM, if there is one,
    `mapped` the payload that it maps, as that was found when it was launched.
    `by_policy` guests were started by a policy run, which stops them when they are listed no longer. If it is `pinned`,
    the files that the definition names are held fast in that directory, and QEMU is given those. The kernel bounds the
    memory of one that is `bounded`, and may merge pages of one that is `merged` with equal ones of others; to the QEMU
    of one that is `enclosed` it opens no files but that guest's. `disk` is what its writable disks can grow to.
    `machine` is the machine type as QEMU versions it, if it has to be a certain one; a domain that is `incoming` waits
    for the state of a guest that was saved. One that is `staged` is paused until its user has use for it.
    """

    spec: GuestSpec
    placement: Placement
    accelerator: Accelerator
    owner: str
    specification: str
    emulator: str
    directory: str
    uuid: str | None = None
    priority: int = 0
    ram_file: RamFile | None = None
    window: Window | None = None
    mapped: MappedPayload | None = None
    by_policy: bool = False
    pinned: bool = False
    machine: str | None = None
    incoming: bool = False
    staged: bool = False
    bounded: bool = False
    merged: bool = False
    enclosed: bool = False
    disk: int = 0

    @property
    def is_mould(self) -> bool:
        """Say whether it only exists to bring a saved guest's RAM into a file."""
        return self.ram_file is not None and self.ram_file.shared

    @property
    def has_plain_ram(self) -> bool:
        """Say whether its RAM is one object of ours, and not of huge pages or bound to the host's nodes by libvirt."""
        return not self.spec.hugepages and not self.placement.nodes

    @property
    def traits(self) -> ArchitectureTraits:
        """Return what is particular to the guest's architecture."""
        return TRAITS[self.spec.architecture]

    @property
    def monitor_socket(self) -> str:
        """Return the path of our own QMP socket, beside libvirt's."""
        return f"{self.directory}/monitor.sock"

    @property
    def serial_socket(self) -> str:
        """Return the path at which one console at a time can attach to the serial port."""
        return f"{self.directory}/serial.sock"

    @property
    def serial_log(self) -> str:
        """Return the path of the file that keeps what the serial port printed."""
        return f"{self.directory}/serial.log"

    @property
    def pins(self) -> dict[str, GuestFile]:
        """Return the file of the definition that is held fast at each path; folders are not: QEMU uses none itself."""
        files = guest_files(self.spec) if self.pinned else ()
        return {f"{self.directory}/{file.pin}": file for file in files if not file.folder}

    def file(self, key: str, path: str) -> str:
        """Return where QEMU, or a back end of the guest's, finds what the definition has at `key`, which is `path`."""
        return f"{self.directory}/{GuestFile(key, path).pin}" if self.pinned else path

    def back_end_socket(self, name: str) -> str:
        """Return the path at which QEMU reaches the back end of this name."""
        return f"{self.directory}/{name}.sock"

    def overlay(self, target: str) -> str:
        """Return the path of the throw-away layer above the disk `target`."""
        return f"{self.directory}/{target}.overlay.qcow2"

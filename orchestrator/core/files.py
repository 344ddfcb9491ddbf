"""The files that a definition names: which, what for, and by what name QEMU is given each. None is opened here."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.model import Boot, DiskFormat, GuestSpec

FOUND_BY_LIBVIRT = ("firmware", "efi")
"""The key and the word for firmware that libvirt finds on the host: no path."""

_BOOT_KEYS = ("payload", "kernel", "initrd", "firmware")

_QCOW2 = b"QFI\xfb"
_DATA_FILE = 1 << 2  # of the incompatible features, docs/interop/qcow2.txt of QEMU

_SECTOR = 512

HEADER_BYTES = 80
"""How much of an image `image_trouble` and `image_size` have to see."""


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file that must be there for the guest to start: its dotted key in the definition, and its path.

    It is opened for writing too if it is `writable`; `format` is None where the file is no disk. A `folder` is only
    looked at: who uses it opens it himself, with its owner's rights.
    """

    key: str
    path: str
    writable: bool = False
    format: DiskFormat | None = None
    folder: bool = False

    @property
    def pin(self) -> str:
        """Return the name at which the file is held fast in the guest's run directory: nothing that QEMU splits at."""
        return "pin." + self.key.replace("[", ".").replace("]", "")


def boot_paths(boot: Boot) -> dict[str, str]:
    """Return the path behind each key of a boot table that names a file."""
    found = {key: getattr(boot, key, None) for key in _BOOT_KEYS}
    return {key: path for key, path in found.items() if path is not None and (key, path) != FOUND_BY_LIBVIRT}


def guest_files(spec: GuestSpec) -> tuple[GuestFile, ...]:
    """Return every file and folder that a definition names."""
    boot = (GuestFile(f"boot.{key}", path) for key, path in boot_paths(spec.boot).items())
    disks = (
        GuestFile(disk_key(index), disk.path, not (disk.readonly or disk.overlay), disk.format)
        for index, disk in enumerate(spec.disks)
    )
    shares = (
        _folder(share_key(index), share.path, writable=not share.readonly) for index, share in enumerate(spec.shares)
    )
    state = () if spec.tpm is None or spec.tpm.state is None else (_folder("tpm.state", spec.tpm.state, writable=True),)
    return (*boot, *disks, *shares, *state)


def _folder(key: str, path: str, *, writable: bool) -> GuestFile:
    return GuestFile(key, path, writable, folder=True)


def share_key(index: int) -> str:
    """Return the key of the path of the shared folder at `index`."""
    return f"share[{index}].path"


def disk_key(index: int) -> str:
    """Return the key of the path of the disk at `index`."""
    return f"disk[{index}].path"


def image_trouble(header: bytes, form: DiskFormat | None) -> str:
    """Say why QEMU would open more than this image, or cannot read it; "" if neither. `header` is how it begins."""
    if form is not DiskFormat.QCOW2:
        return ""
    if len(header) < HEADER_BYTES or not header.startswith(_QCOW2):
        return "is not in the format qcow2"
    if _number(header, 8, 8):
        return "is based on another image, which would be opened too; `qemu-img convert -O qcow2` makes one of both"
    if _number(header, 4, 4) >= 3 and _number(header, 72, 8) & _DATA_FILE:
        return "keeps its data in another file, which would be opened too; `qemu-img convert` makes one of both"
    return ""


def image_size(header: bytes, form: DiskFormat, length: int) -> int:
    """Return the size of the disk in an image of `length` bytes; QEMU counts in sectors, the last one too."""
    return _number(header, 24, 8) if form is DiskFormat.QCOW2 else -(-length // _SECTOR) * _SECTOR


def _number(header: bytes, start: int, width: int) -> int:
    return int.from_bytes(header[start : start + width], "big")

"""Writes the nested host's initramfs: busybox, a few modules and the first script, as a cpio archive."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import HostError
from orchestrator.lab.image import is_static, load_order
from orchestrator.lab.kernel import LabKernel

_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console")
_BUSYBOX: Final = ("/bin/busybox", "/usr/bin/busybox")
_ALIGNMENT: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its path without a leading slash, its mode with the type bits, its content.

    `device` is the (major, minor) pair of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: Iterable[Entry]) -> bytes:
    """Return a "newc" archive of `entries`; O(total size).

    The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: a header of 13
    fields of 8 hexadecimal digits, the name and the data, each padded to 4 bytes. A directory comes before
    what it holds.
    """
    archive = bytearray()
    for inode, entry in enumerate((*entries, Entry("TRAILER!!!", 0)), start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % _ALIGNMENT) + entry.data
        archive += bytes(-len(archive) % _ALIGNMENT)
    return bytes(archive)


def build_initramfs(kernel: LabKernel, files: Mapping[str, bytes]) -> bytes:
    """Return the initramfs of one lab; `files` are added at its root, each executable (one is ``init``).

    Modules are numbered in the order in which they must be inserted: ``modules/00-virtio.ko`` ...

    Raises `HostError` if there is no static busybox, `FailedError` if the kernel lacks a module.
    """
    order = load_order(
        (kernel.modules / "modules.dep").read_text(),
        (kernel.modules / "modules.builtin").read_text(),
        _MODULES,
    )
    directories = [
        Entry(path, stat.S_IFDIR | 0o755) for path in ("bin", "dev", "modules", "proc", "root", "sys", "run")
    ]
    modules = [
        Entry(
            f"modules/{number:02}-{Path(file).name}",
            stat.S_IFREG | 0o644,
            (kernel.modules / file).read_bytes(),
        )
        for number, file in enumerate(order)
    ]
    return cpio(
        (
            *directories,
            Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry("bin/busybox", stat.S_IFREG | 0o755, _static_busybox()),
            *modules,
            *(Entry(path, stat.S_IFREG | 0o755, data) for path, data in files.items()),
        )
    )


def _static_busybox() -> bytes:
    for path in map(Path, _BUSYBOX):
        if path.is_file() and is_static(data := path.read_bytes()):
            return data
    raise HostError("the lab needs a statically linked busybox; on Debian run: sudo apt-get install busybox-static")

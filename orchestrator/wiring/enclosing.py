"""What the embedded driver's QEMUs may do with files: each has its own guest's, and what every QEMU needs of the host.

The thread that starts one restricts itself first (Landlock), and with it whatever it starts: libvirt, which does its
work in that thread, and QEMU. So what libvirt keeps of guests stays open to QEMU too; no file of a guest's is there but
the variables of its UEFI.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.core.xml.enclosure import Enclosure, enclosure
from orchestrator.host import images, landlock, privileges
from orchestrator.host.landlock import ALL, DEVICE, PROGRAMS, READ, Access

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = (
    *("/proc", "/sys", "/run/libvirt", "/etc/libvirt", "/etc/qemu", "/etc/alternatives", "/etc/ld.so.conf.d"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.preload", "/etc/localtime", "/etc/nsswitch.conf"),
    *("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/services"),
    *("/etc/protocols", "/etc/gai.conf", "/etc/machine-id"),
)
_DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/kvm", "/dev/ptmx", "/dev/pts"),
    *("/dev/net/tun", "/dev/vhost-net"),
)
"""No disk of the host is among them."""


Begin = Callable[[str, Callable[[], object]], None]

BARE: Begin = privileges.begin
"""What makes that call where QEMU is not a child of this process, or its user's own."""


def restricts(user: int | None = None) -> bool:
    """Whether QEMUs that this user starts are restricted to their guests' files: root's, if the kernel has Landlock.

    Those of others have no more than their user's rights, and may need a program that has more, for a bridge.
    """
    return (os.geteuid() if user is None else user) == 0 and landlock.version() > 0


def begin(root: Path, cache: Path) -> Begin:
    """Return what makes the call that starts a guest by its XML; libvirt keeps its own files below these two."""

    def made(xml: str, act: Callable[[], object]) -> None:
        if not restricts():
            BARE(xml, act)
            return
        own = enclosure(xml)
        for path in own.memory:
            _make(path)
        allowed = landlock.merged(_common(root, cache), _own(own))

        def enclosed() -> None:
            landlock.restrict(allowed, network=own.network)
            act()

        BARE(xml, enclosed)

    return made


def _common(root: Path, cache: Path) -> Iterator[tuple[str, Access]]:
    yield from ((path, PROGRAMS) for path in _PROGRAMS)
    yield from ((path, READ) for path in _SETTINGS)
    yield from ((path, DEVICE) for path in _DEVICES)
    yield str(root), READ
    kept = [entry for entry in root.iterdir() if entry.name != "etc"]  # which libvirt has made as it was opened
    yield from ((str(path.resolve()), ALL) for path in (*kept, cache, *_huge_pages()))


def _own(own: Enclosure) -> Iterator[tuple[str, Access]]:
    for program in own.programs:
        yield str(Path(program).resolve().parent), PROGRAMS
    yield from ((path, READ) for path in own.reads)
    yield from ((path, DEVICE | Access.TRUNCATE) for path in own.writes)
    yield from ((path, ALL) for path in own.directories)
    yield from ((base, READ) for image in own.images for base in images.bases(image))


def _make(path: str) -> None:
    """Make an empty file, as QEMU would, if there is none: where it may make files it may make others, too."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _huge_pages() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "hugetlbfs":
            yield Path(where)

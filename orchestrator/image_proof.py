"""What a guest's QEMU has opened as disks, compared with what its owner has."""

from __future__ import annotations

from orchestrator.core.files import disk_key
from orchestrator.core.model import Size, disk_target
from orchestrator.core.xml.domain import Domain
from orchestrator.errors import FailedError
from orchestrator.running import RunningGuest


def overlays(domain: Domain) -> dict[str, tuple[str, str]]:
    """Return what is below each layer that is thrown away: the image and its format, by the path of the layer."""
    return {
        domain.overlay(disk_target(index)): (domain.file(disk_key(index), disk.path), disk.format)
        for index, disk in enumerate(domain.spec.disks)
        if disk.overlay
    }


async def prove_images(guest: RunningGuest, outside: int) -> None:
    """Let nothing be a disk but what its owner has opened: an image may lead to other files, and be rewritten.

    `outside` are the bytes of disks that are not QEMU's, which can be no other files: back ends are their owner's.
    FailedError names what is another file, or has grown beyond what was counted.
    """
    domain = guest.domain
    if not domain.pinned or not domain.spec.disks:
        return
    ours = {*domain.pins, *overlays(domain)}
    for node, path in sorted((await guest.monitor.images()).items()):
        # libvirt itself names those of the firmware
        if path not in ours and not node.startswith("libvirt-pflash"):
            raise FailedError(f"{guest.name}: stopped, an image of its disks leads to another file ({path[:200]})")
    grown = outside + sum(size for path, size in (await guest.monitor.disks()).items() if path in ours)
    if grown > domain.disk:
        raise FailedError(
            f"{guest.name}: stopped, its disks have {Size(grown)} now, and it was let in with {Size(domain.disk)}; "
            "`orchestrator start` has them counted anew"
        )

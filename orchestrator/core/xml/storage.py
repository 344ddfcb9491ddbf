"""<disk>: virtio disks, read-only or with a throw-away overlay, spread over the I/O threads."""

from __future__ import annotations

from orchestrator.core.model import Disk, DiskBoot, DiskFormat, disk_target
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element


def disk_elements(domain: Domain) -> list[Element]:
    """Return a <disk> for each disk of the definition, in its order."""
    return [_disk(domain, index, disk) for index, disk in enumerate(domain.spec.disks)]


def _disk(domain: Domain, index: int, disk: Disk) -> Element:
    spec, target = domain.spec, disk_target(index)
    iothread = index % spec.iothreads + 1 if spec.iothreads else None
    boots = isinstance(spec.boot, DiskBoot) and spec.boot.disk == target
    top_format = DiskFormat.QCOW2 if disk.overlay else disk.format
    top_path = domain.overlay(target) if disk.overlay else disk.path
    parts = [
        element("driver", name="qemu", type=top_format, iothread=iothread),
        element("source", file=top_path),
        element("target", dev=target, bus="virtio"),
    ]
    if disk.overlay:
        # No <backingStore/> inside: it would cut off what a qcow2 image itself is based on.
        backing = element("format", type=disk.format), element("source", file=disk.path)
        parts.insert(2, element("backingStore", *backing, type="file"))
    if disk.readonly:
        parts.append(element("readonly"))
    if boots:
        parts.append(element("boot", order=1))
    return element("disk", *parts, type="file", device="disk")

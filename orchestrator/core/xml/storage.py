"""<disk>: virtio disks, read-only or with a throw-away overlay, spread over the I/O threads."""

from __future__ import annotations

from orchestrator.core.files import disk_key
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
    image = domain.file(disk_key(index), disk.path)
    top_path = domain.overlay(target) if disk.overlay else image
    # Whoever is not trusted has an image that is based on nothing, whatever it says of itself when QEMU opens it. In
    # all others <backingStore/> would cut off what a qcow2 image is based on.
    end = [element("backingStore")] if domain.pinned else []
    parts = [
        element("driver", name="qemu", type=top_format, iothread=iothread),
        element("source", file=top_path),
        element("target", dev=target, bus="virtio"),
    ]
    if disk.overlay:
        backing = element("format", type=disk.format), element("source", file=image), *end
        parts.insert(2, element("backingStore", *backing, type="file"))
    else:
        parts[2:2] = end
    if disk.readonly:
        parts.append(element("readonly"))
    if boots:
        parts.append(element("boot", order=1))
    return element("disk", *parts, type="file", device="disk")

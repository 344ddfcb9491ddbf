"""<disk>: virtio disks, read-only or with a throw-away overlay, spread over the I/O threads or served from outside."""

from __future__ import annotations

from orchestrator.core.files import disk_key
from orchestrator.core.model import Disk, DiskBackend, DiskBoot, DiskFormat, disk_target
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element


def disk_elements(domain: Domain) -> list[Element]:
    """Return a <disk> for each disk of the definition, in its order."""
    kinds = {DiskBackend.QEMU: _disk, DiskBackend.VHOST_USER: _vhost_user_disk}
    return [kinds[disk.backend](domain, index, disk) for index, disk in enumerate(domain.spec.disks)]


def _disk(domain: Domain, index: int, disk: Disk) -> Element:
    spec, target = domain.spec, disk_target(index)
    iothread = index % spec.iothreads + 1 if spec.iothreads else None
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
    return element("disk", *parts, *_boot(domain, target), type="file", device="disk")


def _vhost_user_disk(domain: Domain, index: int, _disk: Disk) -> Element:
    """Return the disk of a storage daemon, which knows all else of it: format, layer, and whether it is read-only.

    It has a queue for each vCPU, as QEMU's own virtio disks have. Without <reconnect> a daemon that ends is noticed.
    """
    target = disk_target(index)
    return element(
        "disk",
        element("driver", name="qemu", type="raw", queues=domain.spec.vcpus),
        element("source", type="unix", path=domain.back_end_socket(target)),
        element("target", dev=target, bus="virtio"),
        *_boot(domain, target),
        type="vhostuser",
        device="disk",
    )


def _boot(domain: Domain, target: str) -> list[Element]:
    boot = domain.spec.boot
    return [element("boot", order=1)] if isinstance(boot, DiskBoot) and boot.disk == target else []

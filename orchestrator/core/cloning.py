"""What can be saved with its disks, and cloned; what the owner of clones has to know. Every reason, as a line each."""

from __future__ import annotations

from orchestrator.core.model import DiskBackend, GuestSpec, KernelBoot, NetworkKind, disk_target
from orchestrator.core.payloads import PayloadMap
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.identity import tells_of_generation


def overlay_targets(spec: GuestSpec) -> tuple[str, ...]:
    """Return the targets of the disks whose overlays are part of the guest's state."""
    return tuple(disk_target(index) for index, disk in enumerate(spec.disks) if disk.overlay)


def unsavable(spec: GuestSpec) -> list[str]:
    """Return why the guest's state cannot be written: part of it is in processes beside its QEMU."""
    served = [disk_target(i) for i, disk in enumerate(spec.disks) if disk.backend is DiskBackend.VHOST_USER]
    reasons = []
    if served:
        reasons.append(
            f"the storage daemon of its disk {', '.join(served)} keeps data in memory while the guest stands still, "
            'and nobody tells it to write that; `backend = "qemu"` makes it possible'
        )
    if spec.shares:
        reasons.append("which files of a shared folder it has open is known to virtiofsd alone, and QEMU saves no such")
    if spec.tpm is not None:
        reasons.append("its TPM would go back to what it was, and a TPM's counters and locks are never to go back")
    return reasons


def unrepeatable(spec: GuestSpec) -> list[str]:
    """Return why the guest cannot go on from one state twice: a disk that is written in place goes on alone."""
    written = [disk_target(i) for i, disk in enumerate(spec.disks) if not (disk.overlay or disk.readonly)]
    if not written:
        return []
    return [
        f"its disk {', '.join(written)} is written in place; `overlay = true` or `readonly = true` makes it possible"
    ]


def is_windowed(spec: GuestSpec) -> bool:
    """Say whether the guest reads a payload through a window, which is no part of its state."""
    return spec.payload is not None and spec.payload.map is PayloadMap.WINDOW


def unclonable(domain: Domain, *, foreign: bool = False) -> list[str]:
    """Return why clones could not share the guest's RAM, or would be in each other's way; `foreign` as `Launcher`."""
    spec, reasons = domain.spec, unsavable(domain.spec) + unrepeatable(domain.spec)
    if foreign:
        reasons.append(
            "the system's libvirt runs QEMU as a user of its own, who may not read a template's RAM; "
            "connect = 'embed' has clones"
        )
    if is_windowed(spec):
        reasons.append("it reads a payload through a window, which is not in its RAM")
    if not domain.has_plain_ram and domain.ram_file is None:
        reasons.append("its RAM is of huge pages, or bound to NUMA nodes, which a file's is not")
    if spec.network.kind in (NetworkKind.BRIDGE, NetworkKind.NETWORK):
        reasons.append("its network card's address is part of its state, and clones on one network need different ones")
    return reasons


def cautions(spec: GuestSpec) -> list[str]:
    """Return what the owner of clones has to know of them."""
    notes = _about_randomness(spec)
    if spec.network.kind is NetworkKind.USER:
        notes.append("each clone's network card keeps the template's address, in a network of its own")
    return notes


def _about_randomness(spec: GuestSpec) -> list[str]:
    """Say so if nothing tells a clone to take fresh random numbers, or nothing has any."""
    deaf = isinstance(spec.boot, KernelBoot) and "acpi=off" in spec.boot.cmdline.split()
    if tells_of_generation(spec) and not deaf:
        return []
    if spec.rng:
        return [
            "clones go on with the template's random numbers at first: nothing tells this guest that it is a clone, "
            "and it takes fresh ones from its entropy device when it would anyway (Linux: within minutes)"
        ]
    if tells_of_generation(spec):
        why = "its kernel is started with acpi=off, and so finds no device that tells it to take fresh ones"
    else:
        why = "this guest has no device that tells it to take fresh ones (a PC with a kernel or a disk has)"
    return [f"clones go on with the template's random numbers: {why}, and none to take them from (`rng = true`)"]

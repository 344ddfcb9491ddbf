"""<os>, <features> and the life-cycle actions: what the guest starts with and what follows when it ends."""

from __future__ import annotations

from orchestrator.core.model import Architecture, DiskBoot, FirmwareBoot, KernelBoot, OnCrash, PayloadBoot
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.elements import Element, element

_MOST_GICV2_VCPUS = 8
"""More than these many processors do not fit the older of ARM's interrupt controllers (ARM IHI 0048B)."""

_ON_CRASH = {OnCrash.STOP: "destroy", OnCrash.RESTART: "destroy", OnCrash.KEEP: "preserve"}


def os_element(domain: Domain) -> Element:
    """Return <os>: machine type and what is booted."""
    return element(
        "os",
        element("type", text="hvm", arch=domain.traits.libvirt, machine=domain.machine or domain.traits.machine),
        *_boot_elements(domain),
        firmware="efi" if _by_uefi(domain) else None,
    )


def _by_uefi(domain: Domain) -> bool:
    """Say whether libvirt is to find UEFI firmware on the host."""
    boot = domain.spec.boot
    return isinstance(boot, DiskBoot) and boot.firmware == "efi"


def _boot_elements(domain: Domain) -> list[Element]:
    match domain.spec.boot:
        case PayloadBoot(payload=payload):
            return [element("kernel", text=domain.file("boot.payload", payload))]
        case KernelBoot(kernel=kernel, initrd=initrd, cmdline=cmdline):
            initrd = initrd and domain.file("boot.initrd", initrd)
            parts = {"kernel": domain.file("boot.kernel", kernel), "initrd": initrd, "cmdline": cmdline}
            return [element(tag, text=text) for tag, text in parts.items() if text]
        case DiskBoot(firmware=None | "efi"):
            return []  # the disk itself carries <boot order>
        case DiskBoot(firmware=str(path)) | FirmwareBoot(firmware=path):
            return [element("loader", text=domain.file("boot.firmware", path), readonly="yes", type="rom")]
    raise AssertionError(domain.spec.boot)


def features_element(domain: Domain) -> Element | None:
    """Return <features>: ACPI and APIC on a PC; on ARM what differs from the machine's own, if anything does.

    On aarch64 libvirt takes ACPI with UEFI only, and server systems look for it there. Under emulation libvirt
    gives every ARM machine a GICv2; under KVM it takes the newest controller that the host offers.
    """
    if domain.traits.is_x86:
        return element("features", element("acpi"), element("apic"))
    parts = []
    if _by_uefi(domain) and domain.spec.architecture is Architecture.AARCH64:
        parts.append(element("acpi"))
    if domain.accelerator is Accelerator.TCG and domain.spec.vcpus > _MOST_GICV2_VCPUS:
        parts.append(element("gic", version=3))
    return element("features", *parts) if parts else None


def lifecycle_elements(domain: Domain) -> list[Element]:
    """Return <on_poweroff>, <on_reboot>, <on_crash>: libvirt never starts a guest anew, for that has to be counted.

    Its own ``restart`` after a panic goes round for ever, a dozen times a second, so restarts are the engine's to do.
    libvirt ends a guest that panicked, or leaves it as it is where it is to be kept.

    A reboot is none of that: QEMU resets the machine in the same process, on the same cores, and tells (RESET), so that
    a loop is noticed. Only a bare-metal payload never reboots on purpose: on x86 a triple fault would make it do so
    thirty times a second, so the first one ends it. (All figures: libvirt 9.0, QEMU 7.2, emulated.)
    """
    on_reboot = "destroy" if isinstance(domain.spec.boot, PayloadBoot) else "restart"
    return [
        element("on_poweroff", text="destroy"),
        element("on_reboot", text=on_reboot),
        element("on_crash", text=_ON_CRASH[domain.spec.on_crash]),
    ]

"""<os>, <features> and the life-cycle actions: what the guest starts with and what follows when it ends."""

from __future__ import annotations

from orchestrator.core.model import Boot, DiskBoot, FirmwareBoot, KernelBoot, OnCrash, PayloadBoot
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element

_ON_CRASH = {OnCrash.STOP: "destroy", OnCrash.RESTART: "restart", OnCrash.KEEP: "preserve"}


def os_element(domain: Domain) -> Element:
    """Return <os>: machine type and what is booted."""
    boot = domain.spec.boot
    by_libvirt = isinstance(boot, DiskBoot) and boot.firmware == "efi"
    return element(
        "os",
        element("type", text="hvm", arch=domain.traits.libvirt, machine=domain.traits.machine),
        *_boot_elements(boot),
        firmware="efi" if by_libvirt else None,
    )


def _boot_elements(boot: Boot) -> list[Element]:
    match boot:
        case PayloadBoot(payload=payload):
            return [element("kernel", text=payload)]
        case KernelBoot(kernel=kernel, initrd=initrd, cmdline=cmdline):
            parts = {"kernel": kernel, "initrd": initrd, "cmdline": cmdline}
            return [element(tag, text=text) for tag, text in parts.items() if text]
        case DiskBoot(firmware=None | "efi"):
            return []  # the disk itself carries <boot order>
        case DiskBoot(firmware=str(path)) | FirmwareBoot(firmware=path):
            return [element("loader", text=path, readonly="yes", type="rom")]
    raise AssertionError(boot)


def features_element(domain: Domain) -> Element | None:
    """Return <features>; an ARM machine without UEFI firmware must not be given ACPI."""
    return element("features", element("acpi"), element("apic")) if domain.traits.is_x86 else None


def lifecycle_elements(domain: Domain) -> list[Element]:
    """Return <on_poweroff>, <on_reboot>, <on_crash>.

    A bare-metal payload never reboots on purpose: on x86 a triple fault would make it do so for ever.
    """
    on_reboot = "destroy" if isinstance(domain.spec.boot, PayloadBoot) else "restart"
    return [
        element("on_poweroff", text="destroy"),
        element("on_reboot", text=on_reboot),
        element("on_crash", text=_ON_CRASH[domain.spec.on_crash]),
    ]

"""<devices> other than disks: folders, serial port, network card, TPM, entropy, watchdog, panic; what is left out."""

from __future__ import annotations

from orchestrator.core.backends import TPM_NAME, share_name
from orchestrator.core.model import NetworkKind, Serial, Watchdog
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element
from orchestrator.core.xml.identity import mac_address
from orchestrator.core.xml.storage import disk_elements


def devices_element(domain: Domain) -> Element:
    """Return <devices>. What libvirt would add unasked (USB, balloon) is switched off: less for a guest to attack."""
    return element(
        "devices",
        element("emulator", text=domain.emulator),
        *disk_elements(domain),
        element("controller", type="usb", model="none"),
        *_filesystems(domain),
        *_interface(domain),
        *_serial(domain),
        *_tpm(domain),
        *_rng(domain),
        *_watchdog(domain),
        *_panic(domain),
        element("memballoon", model="none"),
    )


def _filesystems(domain: Domain) -> list[Element]:
    """Return the shared folders. libvirt would start virtiofsd as root, and on whatever core it itself is."""
    return [
        element(
            "filesystem",
            element("driver", type="virtiofs"),
            element("source", socket=domain.back_end_socket(share_name(index))),
            element("target", dir=share.tag),
            type="mount",
        )
        for index, share in enumerate(domain.spec.shares)
    ]


def _tpm(domain: Domain) -> list[Element]:
    if domain.spec.tpm is None:
        return []
    source = element("source", type="unix", mode="connect", path=domain.back_end_socket(TPM_NAME))
    return [element("tpm", element("backend", source, type="external"), model=domain.traits.tpm_model)]


def _interface(domain: Domain) -> list[Element]:
    network, address = domain.spec.network, mac_address(domain)
    sources = {
        NetworkKind.USER: [],
        NetworkKind.BRIDGE: [element("source", bridge=network.name)],
        NetworkKind.NETWORK: [element("source", network=network.name)],
    }
    if network.kind is NetworkKind.NONE:
        return []
    mac = [] if address is None else [element("mac", address=address)]
    return [element("interface", *mac, *sources[network.kind], element("model", type="virtio"), type=network.kind)]


def _serial(domain: Domain) -> list[Element]:
    """One console can attach to the socket; the log is written by QEMU itself, attached or not."""
    if domain.spec.serial is Serial.NONE:
        return []
    source = element("source", mode="bind", path=domain.serial_socket)
    log = element("log", file=domain.serial_log, append="off")
    return [element("serial", source, log, element("target", port=0), type="unix")]


def _rng(domain: Domain) -> list[Element]:
    if not domain.spec.rng:
        return []
    backend = element("backend", text="/dev/urandom", model="random")
    return [element("rng", backend, model="virtio")]


def _watchdog(domain: Domain) -> list[Element]:
    if domain.spec.watchdog is Watchdog.NONE:
        return []
    return [element("watchdog", model="i6300esb", action=domain.spec.watchdog)]


def _panic(domain: Domain) -> list[Element]:
    return [element("panic", model=domain.traits.panic_model)] if domain.spec.panic else []

"""A domain as libvirt's XML: the parts, in the order in which libvirt itself writes them."""

from __future__ import annotations

from lxml import etree

from orchestrator.core.xml import boot, cpu, devices, identity, memory, metadata, monitor
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.elements import Element, element

_DOMAIN_TYPE = {Accelerator.KVM: "kvm", Accelerator.TCG: "qemu"}


def render(domain: Domain) -> str:
    """Return the domain's XML, indented, ending with a newline. O(size of the definition)."""
    spec = domain.spec
    parts: list[Element | None] = [
        element("name", text=spec.name),
        element("uuid", text=domain.uuid) if domain.uuid else None,
        identity.generation_element(domain),
        metadata.metadata_element(domain),
        memory.memory_element(domain),
        memory.backing_element(domain),
        memory.memtune_element(domain),
        *cpu.vcpu_elements(domain),
        cpu.cputune_element(domain),
        memory.numatune_element(domain),
        identity.identity_element(domain),
        boot.os_element(domain),
        boot.features_element(domain),
        cpu.cpu_element(domain),
        cpu.clock_element(domain),
        *boot.lifecycle_elements(domain),
        devices.devices_element(domain),
        monitor.seclabel_element(),
        monitor.commandline_element(domain),
        monitor.capabilities_element(domain),
    ]
    root = etree.Element("domain", nsmap={"qemu": monitor.QEMU_NAMESPACE})
    root.set("type", _DOMAIN_TYPE[domain.accelerator])
    root.extend(part for part in parts if part is not None)
    etree.cleanup_namespaces(root, keep_ns_prefixes=["qemu"])
    etree.indent(root)
    return str(etree.tostring(root, encoding="unicode")) + "\n"

"""<memory>, <memoryBacking> and <numatune>: how much, of which pages, on which nodes; and files in guests' memory.

Files are mapped by arguments of QEMU's own: libvirt's <source type='file'/> chooses the path by itself, its <shmem>
lets the guest write, and its nvdimm neither exists on ARM nor honours <readonly/> (libvirt 9.0).
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.bounds import most_memory
from orchestrator.core.model import Architecture, NumaWish
from orchestrator.core.payloads import MappedPayload, PayloadMap
from orchestrator.core.xml.domain import Domain, RamFile, Window
from orchestrator.core.xml.elements import Element, cpuset, element

RAM = "orchestrator-ram"
"""The object that is a guest's RAM."""

WINDOW = "orchestrator-window"
"""The object that is a window into a payload."""

_DEVICE = f"ivshmem-plain,memdev={WINDOW},master=on"  # QEMU saves no guest that is not its memory's master


def memory_element(domain: Domain) -> Element:
    """Return <memory> in KiB, libvirt's own unit."""
    return element("memory", text=str(domain.spec.memory // 1024), unit="KiB")


def backing_element(domain: Domain) -> Element | None:
    """Return <memoryBacking>: huge pages if wished, and no pages merged with others' unless the policy says so.

    Where a process beside QEMU works in the guest's memory, that is shared with whom QEMU hands it to, and nobody else.
    What <nosharepages> says (QEMU's ``mem-merge=off``) holds for all memory objects of the guest, also for ours.
    """
    backing = element("memoryBacking")
    if domain.spec.hugepages:
        page = element("page", size=domain.spec.hugepages // 1024, unit="KiB")
        backing.append(element("hugepages", page))
    if not domain.merged:
        backing.append(element("nosharepages"))
    if domain.spec.has_vhost_user:
        backing.append(element("source", type="memfd"))
        backing.append(element("access", mode="shared"))
    return backing if len(backing) else None


def memtune_element(domain: Domain) -> Element | None:
    """Return <memtune> with the most that the guest's QEMU may use of everything, or None if it is not bounded.

    Where libvirt has no control groups the guest has one of ours, with the same bound.
    """
    if not domain.bounded:
        return None
    return element("memtune", element("hard_limit", text=str(most_memory(domain) // 1024), unit="KiB"))


def numatune_element(domain: Domain) -> Element | None:
    """Return <numatune> for the nodes that the cores belong to, or None where the host has only one."""
    nodes = domain.placement.nodes
    if not nodes:
        return None
    if domain.spec.numa is NumaWish.STRICT:
        mode = "strict"
    elif len(nodes) == 1:
        mode = "preferred"
    else:
        mode = "interleave"
    return element("numatune", element("memory", mode=mode, nodeset=cpuset(nodes)))


def with_payload(domain: Domain, mapped: MappedPayload) -> Domain:
    """Return a domain with the file of the payload that its definition wishes for."""
    wish = domain.spec.payload
    if wish is not None and wish.map is PayloadMap.RAM:
        return replace(domain, mapped=mapped, ram_file=RamFile(mapped.path))
    return replace(domain, mapped=mapped, window=Window(mapped.path, mapped.length))


def file_arguments(domain: Domain) -> tuple[str, ...]:
    """Return QEMU's arguments for the guest's RAM, and for the files that its memory is made of.

    RAM: `memory-backend` takes the place of libvirt's own, which stays without a page. It has one name, whether a file
    is behind it or not: a saved state names it, so what was saved of the one fits the other. Only where huge pages or
    nodes are asked for and there is no file, libvirt's own stays: it knows of these. The window is a device
    ``ivshmem-plain``, vendor 1af4 and product 1110, whose region 2 (BAR 2) is the file: QEMU gives it a free slot.
    """
    arguments: list[str] = []
    backend, size = "", int(domain.spec.memory)
    if domain.ram_file is not None:
        file, share = _quoted(domain.ram_file.path), "on" if domain.ram_file.shared else "off"
        backend = f"memory-backend-file,id={RAM},mem-path={file},size={size},share={share}"
    elif domain.has_plain_ram:
        if domain.spec.has_vhost_user:
            backend = f"memory-backend-memfd,id={RAM},size={size},share=on"
        else:
            backend = f"memory-backend-ram,id={RAM},size={size}"
    if backend:
        arguments += ["-object", backend, "-machine", f"memory-backend={RAM}"]
    if domain.window is not None:
        file, size = _quoted(domain.window.path), domain.window.size
        backend = f"memory-backend-file,id={WINDOW},mem-path={file},size={size},share=on,readonly=on"
        bus = "pci.0" if domain.traits.is_x86 else "pcie.0"
        arguments += ["-object", backend, "-device", f"{_DEVICE},bus={bus}"]
        if domain.spec.architecture is Architecture.ARMV7L:
            # Else the machine puts PCI's registers above 4 GiB, where 32-bit code finds them with its MMU alone.
            arguments += ["-machine", "highmem=off"]
    return tuple(arguments)


def _quoted(path: str) -> str:
    return path.replace(",", ",,")  # QEMU option syntax: a doubled comma is a comma

"""<memory>, <memoryBacking> and <numatune>: how much, of which pages, on which nodes."""

from __future__ import annotations

from orchestrator.core.model import NumaWish
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, cpuset, element


def memory_element(domain: Domain) -> Element:
    """Return <memory> in KiB, libvirt's own unit."""
    return element("memory", text=str(domain.spec.memory // 1024), unit="KiB")


def backing_element(domain: Domain) -> Element:
    """Return <memoryBacking>: huge pages if wished, and never pages merged with another owner's."""
    backing = element("memoryBacking")
    if domain.spec.hugepages:
        page = element("page", size=domain.spec.hugepages // 1024, unit="KiB")
        backing.append(element("hugepages", page))
    backing.append(element("nosharepages"))
    return backing


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

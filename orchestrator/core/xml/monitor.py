"""<seclabel> and <qemu:commandline>: confinement, and a QMP socket of our own beside libvirt's."""

from __future__ import annotations

from lxml import etree

from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU's seccomp filter; `resourcecontrol=deny` also keeps the process from changing its own affinity."""

OUR_MONITOR = "chardev=orchestrator-monitor,id=orchestrator,mode=control"
"""The argument by which a QEMU process is known as ours."""


def seclabel_element() -> Element:
    """Return <seclabel>: discretionary access control by libvirt, whatever mandatory driver it adds to it."""
    return element("seclabel", type="dynamic", model="dac", relabel="yes")


def commandline_element(domain: Domain) -> Element:
    """Return <qemu:commandline>: the sandbox holds whatever qemu.conf says, the socket listens before the guest runs."""
    path = domain.monitor_socket.replace(",", ",,")  # QEMU option syntax: a doubled comma is a comma
    arguments = (
        "-sandbox",
        SANDBOX,
        "-chardev",
        f"socket,id=orchestrator-monitor,path={path},server=on,wait=off",
        "-mon",
        OUR_MONITOR,
    )
    node = etree.Element(f"{{{QEMU_NAMESPACE}}}commandline", nsmap={"qemu": QEMU_NAMESPACE})
    for argument in arguments:
        etree.SubElement(node, f"{{{QEMU_NAMESPACE}}}arg").set("value", argument)
    return node

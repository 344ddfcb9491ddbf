"""<seclabel>, <qemu:commandline>, <qemu:capabilities>: confinement, and a QMP socket of our own beside libvirt's."""

from __future__ import annotations

from lxml import etree

from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element
from orchestrator.core.xml.memory import file_arguments

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU's seccomp filter; `resourcecontrol=deny` also keeps the process from changing its own affinity."""

OUR_MONITOR = "chardev=orchestrator-monitor,id=orchestrator,mode=control"
"""The argument by which a QEMU process is known as ours."""


def seclabel_element() -> Element:
    """Return <seclabel>: confined by the model that the host has, be it AppArmor, SELinux or none.

    No model is named: where libvirt has not got that one, as "dac" for any user but root, the guest would not
    start. A privileged libvirt adds "dac" of itself.
    """
    return element("seclabel", type="dynamic", relabel="yes")


def commandline_element(domain: Domain) -> Element:
    """Return <qemu:commandline>: a sandbox whatever qemu.conf says, a socket that listens before the guest runs.

    Then what libvirt has no words for: files in the guest's memory, and a guest that waits for its state.
    """
    path = domain.monitor_socket.replace(",", ",,")  # QEMU option syntax: a doubled comma is a comma
    arguments = (
        "-sandbox",
        SANDBOX,
        "-chardev",
        f"socket,id=orchestrator-monitor,path={path},server=on,wait=off",
        "-mon",
        OUR_MONITOR,
        *file_arguments(domain),
        *(("-incoming", "defer") if domain.incoming else ()),
    )
    node = _qemu_element("commandline")
    for argument in arguments:
        node.append(_qemu_element("arg", value=argument))
    return node


def capabilities_element(domain: Domain) -> Element | None:
    """Return <qemu:capabilities> where huge pages meet <numatune>, else None.

    For these libvirt 9.0 has QEMU 7.2 make a thread-context (qemu_command.c, qemuBuildThreadContextProps), with
    threads that may run on every core of the node, reserved ones too. Without that capability the pages are
    bound to the node just the same, and allocated by threads that stay on the emulator's cores.
    """
    if not domain.spec.hugepages or not domain.placement.nodes:
        return None
    node = _qemu_element("capabilities")
    node.append(_qemu_element("del", capability="thread-context"))
    return node


def _qemu_element(tag: str, **attributes: str) -> Element:
    return etree.Element(f"{{{QEMU_NAMESPACE}}}{tag}", attributes, nsmap={"qemu": QEMU_NAMESPACE})

"""<seclabel>, <qemu:commandline>, <qemu:capabilities>: confinement, and a QMP socket of our own beside libvirt's."""

from __future__ import annotations

from lxml import etree

from orchestrator.core.model import Architecture
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
    """Return <qemu:capabilities>: what of QEMU libvirt (9.0) is not to use; None if it may use all.

    Where huge pages meet <numatune> it has QEMU 7.2 make a thread-context (qemu_command.c,
    qemuBuildThreadContextProps), with threads that may run on every core of the node, reserved ones too. Without that
    capability the pages are bound to the node just the same, and allocated by threads on the emulator's cores.

    With cpu-unavailable-features it asks an x86_64 QEMU for each feature of the processor by itself, 400 times in 0.3 s
    of each start; without it once for all of them (qemu_process.c, qemuProcessFetchGuestCPU).
    """
    unwanted = []
    if domain.spec.hugepages and domain.placement.nodes:
        unwanted.append("thread-context")
    if domain.spec.architecture is Architecture.X86_64:
        unwanted.append("cpu-unavailable-features")
    if not unwanted:
        return None
    node = _qemu_element("capabilities")
    for capability in unwanted:
        node.append(_qemu_element("del", capability=capability))
    return node


def _qemu_element(tag: str, **attributes: str) -> Element:
    return etree.Element(f"{{{QEMU_NAMESPACE}}}{tag}", attributes, nsmap={"qemu": QEMU_NAMESPACE})

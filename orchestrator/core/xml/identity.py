"""<genid> and <sysinfo>: by what a guest that was cloned, or saved and restored, knows who it is and that it was.

Both are asked of QEMU whenever the guest looks, and are not in its memory: a clone finds its own there, not those of
the template. The guest's driver may keep the length of a file, so each has a fixed one.
"""

from __future__ import annotations

import hashlib

from orchestrator.core.arch import TRAITS
from orchestrator.core.model import GuestSpec, PayloadBoot
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element, element

PREFIX = "opt/org.orchestrator/"
"""Where the guest finds the files; QEMU's specification of fw_cfg leaves names of this form to users."""

_LONGEST_NAME = 64


def tells_of_generation(spec: GuestSpec) -> bool:
    """Say whether the guest has a device that tells it to take fresh random numbers: ACPI's, so it must be a PC.

    A bare-metal payload has nobody who would listen.
    """
    return TRAITS[spec.architecture].is_x86 and not isinstance(spec.boot, PayloadBoot)


def generation_element(domain: Domain) -> Element | None:
    """Return <genid>, empty: libvirt puts a random one in each time that the guest is defined."""
    return element("genid") if tells_of_generation(domain.spec) else None


def identity_element(domain: Domain) -> Element | None:
    """Return <sysinfo>: the guest's name, filled up with blanks, and its machine id (32 hexadecimal digits)."""
    if domain.uuid is None:
        return None
    files = {"name": domain.spec.name.ljust(_LONGEST_NAME), "machine-id": domain.uuid.replace("-", "")}
    entries = (element("entry", text=text, name=f"{PREFIX}{name}") for name, text in files.items())
    return element("sysinfo", *entries, type="fwcfg")


def mac_address(domain: Domain) -> str | None:
    """Return the address of the guest's network card: its own, and the same each time it is started."""
    if domain.uuid is None:
        return None
    digest = hashlib.sha256(domain.uuid.encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])  # the prefix is QEMU's own

"""<metadata>: owner, specification and placement travel with the domain, so that a lost database can be rebuilt."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from orchestrator.core.payloads import MappedPayload
from orchestrator.core.placement import Placement
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.elements import Element, cpuset, element

NAMESPACE = "urn:orchestrator:domain"
VERSION = "1"

PAUSED = "paused"
"""The element that says so of a guest that its user has paused."""

BY_POLICY = "by-policy"
"""The element that says so of a guest that a policy run has started."""

STAGED = "staged"
ENCLOSED = "enclosed"
"""The element that says so of a clone that is kept ready, until it is resumed for the first time."""

MAPPED = "mapped"
"""The element that says which payload's file it maps, and how that was when the guest was launched."""

MOULD = "mould"
"""The element that says so of a domain that exists only until a template has been made with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a domain says of itself: whose it is, as what it was defined, and where it was placed.

    `vcpus` has the pCPU of each vCPU; `emulator` and `held` are ascending. `priority` is its class, `paused` whether
    its user has paused it, which a scheduler's preemption is not, `by_policy` whether a policy run started it,
    `mould` as `Domain.is_mould`, `staged`, `disk`, `enclosed` and `mapped` as there.
    """

    owner: str
    specification: str
    accelerator: Accelerator
    directory: str
    vcpus: tuple[int, ...]
    emulator: tuple[int, ...]
    held: tuple[int, ...]
    priority: int = 0
    paused: bool = False
    by_policy: bool = False
    mould: bool = False
    staged: bool = False
    disk: int = 0
    enclosed: bool = False
    mapped: MappedPayload | None = None


def metadata_element(domain: Domain) -> Element:
    """Return <metadata> with the one element that is ours."""
    guest = etree.Element(f"{{{NAMESPACE}}}guest", nsmap={"orchestrator": NAMESPACE})
    guest.set("version", VERSION)
    parts = {
        "owner": domain.owner,
        "accelerator": domain.accelerator,
        "directory": domain.directory,
        **_where(domain.placement),
        "specification": domain.specification,
    }
    if domain.priority:
        parts["priority"] = str(domain.priority)
    if domain.disk:
        parts["disk"] = str(domain.disk)
    if domain.by_policy:
        parts[BY_POLICY] = ""
    if domain.staged:
        parts[PAUSED] = parts[STAGED] = ""
    if domain.enclosed:
        parts[ENCLOSED] = ""
    if domain.is_mould:
        parts[MOULD] = ""
    for tag, text in parts.items():
        etree.SubElement(guest, f"{{{NAMESPACE}}}{tag}").text = text
    if domain.mapped is not None:
        guest.append(_mapped_element(domain.mapped))
    return element("metadata", guest)


def _where(placement: Placement) -> dict[str, str]:
    return {
        "vcpus": ",".join(map(str, placement.vcpus)),
        "emulator": cpuset(placement.emulator),
        "held": cpuset(placement.held),
    }


def _mapped_element(mapped: MappedPayload) -> Element:
    found = etree.Element(f"{{{NAMESPACE}}}{MAPPED}", digest=mapped.digest, length=str(mapped.length))
    found.set("stamp", ",".join(map(str, mapped.stamp)))
    found.text = mapped.path
    return found


def _mapped(guest: Element) -> MappedPayload | None:
    found = guest.find(f"{{{NAMESPACE}}}{MAPPED}")
    if found is None:
        return None
    stamp = tuple(int(number) for number in found.get("stamp", "").split(",") if number)
    return MappedPayload(found.get("digest", ""), found.text or "", int(found.get("length", "")), stamp)


def read_metadata(guest: Element) -> Metadata | None:
    """Read our element back; None if it is of another version or not complete."""

    def text(tag: str) -> str:
        found = guest.findtext(f"{{{NAMESPACE}}}{tag}")
        if found is None:
            raise ValueError(tag)
        return str(found)

    def cores(tag: str) -> tuple[int, ...]:
        return tuple(int(core) for core in text(tag).split(","))

    if guest.get("version") != VERSION:
        return None
    try:
        return Metadata(
            owner=text("owner"),
            specification=text("specification"),
            accelerator=Accelerator(text("accelerator")),
            directory=text("directory"),
            vcpus=cores("vcpus"),
            emulator=cores("emulator"),
            held=cores("held"),
            priority=int(guest.findtext(f"{{{NAMESPACE}}}priority") or 0),
            disk=int(guest.findtext(f"{{{NAMESPACE}}}disk") or 0),
            paused=guest.find(f"{{{NAMESPACE}}}{PAUSED}") is not None,
            by_policy=guest.find(f"{{{NAMESPACE}}}{BY_POLICY}") is not None,
            staged=guest.find(f"{{{NAMESPACE}}}{STAGED}") is not None,
            enclosed=guest.find(f"{{{NAMESPACE}}}{ENCLOSED}") is not None,
            mapped=_mapped(guest),
            mould=guest.find(f"{{{NAMESPACE}}}{MOULD}") is not None,
        )
    except ValueError:
        return None


def mark_paused(guest: Element, *, paused: bool) -> None:
    """Say in our element whether the guest's user has paused it; one that is resumed is not staged any more, either.

    Without a namespace: libvirt takes it out of the element that it gives, and puts it into the one it is given.
    """
    for tag in (PAUSED,) if paused else (PAUSED, STAGED):
        for mark in guest.findall(tag):
            guest.remove(mark)
    if paused:
        etree.SubElement(guest, PAUSED)


def mark_placed(guest: Element, placement: Placement) -> None:
    """Say in our element where the guest is, or is to be; without a namespace, as `mark_paused`."""
    for tag, text in _where(placement).items():
        guest.find(tag).text = text

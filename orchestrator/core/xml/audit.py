"""Could any thread of a libvirt domain run on a reserved core? `audit` answers from the XML alone.

What libvirt's QEMU driver allows each thread (9.0, src/qemu/qemu_process.c, qemuProcessSetupPid): its own
pin (vcpupin, emulatorpin, iothreadpin); else, under automatic placement, what numad chooses; else
<vcpu cpuset>; else every core of the host. <numatune> binds memory, never threads.

Judged are the threads of the QEMU process. Helper processes (swtpm, virtiofsd, vhost-user ...) and kernel
workers (vhost, kvm-pit) are not among them, and a cgroup that someone made narrower is not in the XML.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from lxml import etree

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.xml.cpuset import cores_in, mask_of, plain, shown
from orchestrator.core.xml.elements import Element
from orchestrator.core.xml.escapes import cautions, escapes
from orchestrator.core.xml.pinning import (
    Pin,
    Pinning,
    PinningError,
    attribute,
    domain_name,
    read_pinning,
)
from orchestrator.core.xml.verdict import Exposure, Kind, Verdict

RESERVED = frozenset({0, 1})
"""The scheduler core and the service core."""

MOST_BYTES = 64 << 20
"""A longer text is not looked at: thousands of domains fit, and parsing takes several times as much memory."""

QEMU_TYPES = frozenset({"qemu", "kvm", "kqemu", "hvf"})
"""The domain types that libvirt's QEMU driver runs."""

_WORST_FIRST = (Kind.INVALID, Kind.EXPOSED, Kind.FOREIGN, Kind.CONFINED)


def audit(text: bytes, reserved: frozenset[int] = RESERVED) -> Verdict:
    """Judge one file: a <domain>, or a status, snapshot, checkpoint or other file with domains inside.

    Where a file holds several, the verdict is the worst one's, with the exposures of all. Never raises,
    whatever the bytes. Growth: linear in the size of the file and in the count of threads it defines.
    """
    if len(text) > MOST_BYTES:
        return Verdict(Kind.INVALID, reason=f"larger than {MOST_BYTES >> 20} MiB, the most that is looked at")
    try:
        root = _parse(text)
    except (etree.LxmlError, ValueError, LookupError) as error:
        reason = getattr(error, "msg", None) or str(error)
        return Verdict(Kind.INVALID, reason=plain(f"not XML: {reason}", 200), line=getattr(error, "lineno", None))
    if root.getroottree().docinfo.internalDTD is not None:
        reason = "has a <!DOCTYPE>, whose entities and defaults could change any pin; libvirt XML needs none"
        return Verdict(Kind.INVALID, reason=reason, line=1)
    verdicts = [_judge(domain, root, mask_of(reserved)) for domain in _domains(root)]
    if not verdicts:
        reason = f"the root element is <{plain(root.tag)}>, and no domain is defined in it"
        return Verdict(Kind.NOT_A_DOMAIN, reason=reason, line=root.sourceline)
    return _together(verdicts)


def _parse(text: bytes) -> Element:
    """Return the root element; entities stay unresolved and nothing outside of `text` is read."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(text, parser)


def _domains(root: Element) -> Iterator[Element]:
    """Yield the outermost domain definitions.

    Below another root, only what has a type and a name is one: capabilities use <domain> for something
    else, and old snapshots name a domain by its UUID alone.
    """
    if root.tag in ("domain", "inactiveDomain"):
        yield root
        return
    for node in root.iter("domain", "inactiveDomain"):
        inside = next(node.iterancestors("domain", "inactiveDomain"), None)
        if inside is None and attribute(node, "type") and node.find("name") is not None:
            yield node


def _judge(domain: Element, root: Element, reserved: int) -> Verdict:
    """Return the verdict on one <domain> in the document of `root`."""
    name, kind = domain_name(domain), attribute(domain, "type") or ""
    try:
        pinning = read_pinning(domain, root.find("numad") if root.tag == "domstatus" else None)
    except PinningError as error:
        return Verdict(Kind.INVALID, name, kind, reason=str(error), line=error.line)
    if kind in QEMU_TYPES:
        found = (*_exposures(_threads(pinning), pinning, reserved), *escapes(domain, reserved))
        verdict = Verdict(Kind.EXPOSED if found else Kind.CONFINED, name, kind, cautions=cautions(domain))
    else:
        found = tuple(_exposures(_vcpus(pinning), pinning, reserved))
        reason = f"type {shown(kind)} is not libvirt's QEMU driver's, so its threads' cores cannot be told"
        if found:
            reason += "; where its driver honours the vCPUs' cpusets, these do allow reserved cores"
        verdict = Verdict(Kind.FOREIGN, name, kind, reason=reason, line=domain.sourceline)
    below = "" if domain is root else f"{domain.tag}/"
    return replace(verdict, exposures=tuple(replace(one, element=below + one.element) for one in found))


def _together(verdicts: list[Verdict]) -> Verdict:
    """Return the worst of several verdicts on one file, with the exposures and cautions of all."""
    worst = min(verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.kind))
    return replace(
        worst,
        exposures=tuple(exposure for verdict in verdicts for exposure in verdict.exposures),
        cautions=tuple(dict.fromkeys(caution for verdict in verdicts for caution in verdict.cautions)),
    )


@dataclass(frozen=True, slots=True)
class _Thread:
    """Threads with one pin in common, or with none: `pin_element` is then the path of the missing one."""

    label: str
    pin: Pin | None
    pin_element: str
    offline: bool = False


def _threads(pinning: Pinning) -> Iterator[_Thread]:
    """Yield all threads of the QEMU process that libvirt places."""
    yield from _vcpus(pinning)
    yield _Thread("emulator", pinning.emulator_pin, "cputune/emulatorpin")
    yield from _alike("I/O thread", pinning.iothreads, pinning.iothread_pins, "cputune/iothreadpin")


def _vcpus(pinning: Pinning) -> Iterator[_Thread]:
    yield from _alike("vCPU", pinning.online, pinning.vcpu_pins, "cputune/vcpupin")
    yield from _alike("vCPU", pinning.offline, pinning.vcpu_pins, "cputune/vcpupin", offline=True)


def _alike(
    label: str, ids: Iterable[int], pins: Mapping[int, Pin], pin_element: str, *, offline: bool = False
) -> Iterator[_Thread]:
    """Yield each pinned thread, then all the unpinned ones together, since they share their cause."""
    rest = [number for number in ids if number not in pins]
    for number in ids:
        if number in pins:
            yield _Thread(f"{label} {number}", pins[number], pins[number].element, offline)
    if rest:
        plural = "s" if len(rest) > 1 else ""
        yield _Thread(f"{label}{plural} {format_cpulist(rest)}", None, pin_element, offline)


def _exposures(threads: Iterable[_Thread], pinning: Pinning, reserved: int) -> Iterator[Exposure]:
    """Yield the threads that libvirt would let run on cores of the bit mask `reserved`."""
    for thread in threads:
        pin = thread.pin or pinning.default
        cores = cores_in(reserved if pin is None or pin.mask is None else reserved & pin.mask)
        if not cores:
            continue
        reason = _reason(thread, pin, pinning, cores)
        if thread.offline:
            reason += " (offline at start, but it can be plugged in)"
        yield Exposure(
            thread=thread.label,
            cores=cores,
            element=thread.pin_element if pin is None else pin.element,
            line=pinning.line if pin is None else pin.line,
            missing=pin is None,
            reason=reason,
        )


def _reason(thread: _Thread, pin: Pin | None, pinning: Pinning, cores: tuple[int, ...]) -> str:
    """Say why a thread may use these reserved cores, and what would keep it from them."""
    reach = f"core{'s' if len(cores) > 1 else ''} {format_cpulist(cores)}"
    tag = thread.pin_element.partition("/")[2].partition("[")[0]
    if thread.pin:
        return f"its {tag} has cpuset={shown(thread.pin.text)}, which allows {reach}"
    if pin is None:
        return f"no {tag} and no vcpu/@cpuset, so every host core is allowed; <{tag}> would confine it"
    if pin.mask is None:
        return f"no {tag}, and {pin.element}='auto' lets numad choose any core; <{tag}> would confine it"
    if pinning.auto:
        return f"no {tag}, and under {pin.element}='auto' numad chose cores that include {reach}"
    return f"no {tag}, so vcpu/@cpuset={shown(pin.text)} holds, which allows {reach}"

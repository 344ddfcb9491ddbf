"""What libvirt reads from a <domain> about the cores of its threads: `read_pinning`.

This follows libvirt's own parser (9.0, src/conf/domain_conf.c: virDomainVcpuParse, its neighbours for
pins and I/O threads, and the end of virDomainDefParseXML; src/util/virxml.c and virstring.c for numbers)
in what it takes and in what it refuses of these elements. The rest of a domain is not looked at, and
what the pins mean for a thread is decided in `audit.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from lxml import etree

from orchestrator.core.xml.cpuset import parse_cpuset, shown
from orchestrator.core.xml.elements import Element

THREAD_LIMIT = 16384
"""More vCPUs or I/O threads than any QEMU machine takes; above it, a count is taken for a mistake."""

_NUMBER = re.compile(r"[ \t\n\v\f\r]*\+?0*([0-9]{1,10})")


class PinningError(ValueError):
    """libvirt would not accept this domain: one line that says why, and the source line."""

    def __init__(self, message: str, line: int | None) -> None:
        self.line = line
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Pin:
    """A set of allowed cores (a bit mask; None is every core of the host) and the attribute that gives it.

    `element` is a path below <domain>, `text` the value as written, `line` where.
    """

    mask: int | None
    element: str
    text: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Pinning:
    """The threads that libvirt knows of in one domain, and every pin that it would apply to them.

    `default` holds for each thread without a pin of its own; None means that nothing confines those.
    Under automatic placement (`auto`) it is what numad chooses. `online` are the vCPUs present at start,
    `offline` those that can be plugged in later; `vcpu_pins` and `iothread_pins` go by id.
    """

    name: str
    type: str
    line: int | None
    auto: bool
    default: Pin | None
    online: tuple[int, ...]
    offline: tuple[int, ...]
    iothreads: tuple[int, ...]
    vcpu_pins: Mapping[int, Pin]
    emulator_pin: Pin | None
    iothread_pins: Mapping[int, Pin]


def attribute(node: Element, name: str) -> str | None:
    """Return an attribute's value as libvirt finds it: the first with this local name, in any namespace."""
    return next((str(value) for key, value in node.items() if etree.QName(key).localname == name), None)


def domain_name(domain: Element) -> str:
    """Return the text of <name>, empty where there is none."""
    return str(domain.xpath("string(name)"))


def read_pinning(domain: Element, numad: Element | None = None) -> Pinning:
    """Return what libvirt would read from this <domain> element about cores.

    `numad` is the element of a live status file that records numad's choice. Raises PinningError for
    what libvirt refuses. Growth: linear in the size of the element and in its count of threads.
    """
    kind = attribute(domain, "type")
    if not kind:
        _refuse(domain, "<domain> has no type attribute (kvm, qemu, ...), and libvirt requires one")
    vcpu = domain.find("vcpu")
    cpuset = _cpuset_of_vcpu(vcpu)
    online, offline = _vcpus(domain, vcpu)
    iothreads = _iothreads(domain)
    vcpu_pins = _vcpu_pins(domain, len(online) + len(offline))
    emulator_pin = _emulator_pin(domain)
    iothread_pins = _iothread_pins(domain, iothreads)
    pinned = bool(cpuset or vcpu_pins or emulator_pin or iothread_pins)
    automatic = _automatic(domain, vcpu, numad, pinned=pinned)
    return Pinning(
        name=domain_name(domain),
        type=kind,
        line=domain.sourceline,
        auto=automatic is not None,
        default=automatic or cpuset,
        online=online,
        offline=offline,
        iothreads=iothreads,
        vcpu_pins=vcpu_pins,
        emulator_pin=emulator_pin,
        iothread_pins=iothread_pins,
    )


def _refuse(node: Element, message: str) -> NoReturn:
    raise PinningError(message, node.sourceline)


def _number(node: Element, what: str, text: str | None, least: int = 0) -> int:
    """Return a count or an id as strtoul reads it: blanks and a plus may precede it, nothing may follow."""
    if text is None:
        _refuse(node, f"{what} is missing, and libvirt requires it")
    match = _NUMBER.fullmatch(text)
    if match is None or not least <= int(match[1]) < 1 << 32:
        _refuse(node, f"{what} is {shown(text)}: libvirt takes a whole number of at least {least} here")
    return int(match[1])


def _pin(node: Element, element: str) -> Pin:
    """Return the cpuset attribute of `node`, whose path is `element`, as a pin."""
    text = attribute(node, "cpuset")
    if text is None:
        _refuse(node, f"{element} has no cpuset attribute, and libvirt requires one")
    try:
        return Pin(parse_cpuset(text), element, text, node.sourceline)
    except ValueError as error:
        raise PinningError(f"{element}: cpuset {error}", node.sourceline) from None


def _vcpus(domain: Element, vcpu: Element | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the vCPUs that are there at start, and of those that can be plugged in."""
    count = current = 1
    if vcpu is not None:
        count = current = _number(vcpu, "the count in <vcpu>", vcpu.xpath("string()"), least=1)
        if count > THREAD_LIMIT:
            _refuse(vcpu, f"<vcpu> asks for {count} vCPUs; no machine takes more than {THREAD_LIMIT}")
        if attribute(vcpu, "current") is not None:
            current = _number(vcpu, "vcpu/@current", attribute(vcpu, "current"))
    states = domain.findall("vcpus/vcpu")
    if states:
        # Where vCPUs are listed one by one, those not listed are offline, and @current counts for nothing.
        online = _listed(states, count)
    elif current > count:
        _refuse(domain, f"vcpu/@current is {current}, more than the {count} vCPUs there can be")
    else:
        online = set(range(current))
    return tuple(sorted(online)), tuple(cpu for cpu in range(count) if cpu not in online)


def _listed(states: list[Element], count: int) -> set[int]:
    """Return the ids that <vcpus> says are enabled; a later entry for the same id replaces an earlier one."""
    online: dict[int, bool] = {}
    fixed: dict[int, bool] = {}
    for state in states:
        cpu = _number(state, "vcpus/vcpu/@id", attribute(state, "id"))
        if cpu >= count:
            _refuse(state, f"vcpus/vcpu/@id is {cpu}, but ids end below the {count} of <vcpu>")
        online[cpu] = _flag(state, "enabled") is True
        fixed[cpu] = _flag(state, "hotpluggable", required=False) is False
        if attribute(state, "order") is not None:
            _number(state, "vcpus/vcpu/@order", attribute(state, "order"))
    for cpu, enabled in online.items():
        if fixed[cpu] and not enabled:
            _refuse(states[0], f"vCPU {cpu} is neither enabled nor hotpluggable, which libvirt refuses")
    return {cpu for cpu, enabled in online.items() if enabled}


def _flag(node: Element, name: str, *, required: bool = True) -> bool | None:
    text = attribute(node, name)
    if text is None and not required:
        return None
    if text not in ("yes", "no"):
        _refuse(node, f"{node.tag}/@{name} is {shown(text or '')}; libvirt takes 'yes' or 'no'")
    return text == "yes"


def _iothreads(domain: Element) -> tuple[int, ...]:
    """Return the I/O threads' ids: the listed ones, then the lowest free ones until <iothreads> are there."""
    text = str(domain.xpath("string(iothreads[1])"))
    count = _number(domain.find("iothreads"), "the count in <iothreads>", text) if text else 0
    listed: dict[int, None] = {}
    for node in domain.findall("iothreadids/iothread"):
        number = _number(node, "iothreadids/iothread/@id", attribute(node, "id"), least=1)
        if number in listed:
            _refuse(node, f"I/O thread id {number} is listed twice in <iothreadids>")
        listed[number] = None
    if count > THREAD_LIMIT:
        _refuse(
            domain.find("iothreads"),
            f"<iothreads> asks for {count}; no machine takes more than {THREAD_LIMIT}",
        )
    free = (number for number in range(1, count + 1) if number not in listed)
    ids = [*listed, *(number for number, _ in zip(free, range(count - len(listed)), strict=False))]
    return tuple(sorted(ids))


def _vcpu_pins(domain: Element, count: int) -> dict[int, Pin]:
    pins: dict[int, Pin] = {}
    for node in domain.findall("cputune/vcpupin"):
        cpu = _number(node, "cputune/vcpupin/@vcpu", attribute(node, "vcpu"))
        if cpu >= count:
            continue  # libvirt passes over a pin for a vCPU that is not there, whatever it says
        if cpu in pins:
            _refuse(node, f"vCPU {cpu} has two vcpupin elements")
        pins[cpu] = _pin(node, f"cputune/vcpupin[@vcpu='{cpu}']")
    return pins


def _emulator_pin(domain: Element) -> Pin | None:
    nodes = domain.findall("cputune/emulatorpin")
    if len(nodes) > 1:
        _refuse(nodes[1], "there are two emulatorpin elements; libvirt takes one")
    return _pin(nodes[0], "cputune/emulatorpin") if nodes else None


def _iothread_pins(domain: Element, iothreads: tuple[int, ...]) -> dict[int, Pin]:
    pins: dict[int, Pin] = {}
    known = frozenset(iothreads)
    for node in domain.findall("cputune/iothreadpin"):
        number = _number(node, "cputune/iothreadpin/@iothread", attribute(node, "iothread"), least=1)
        if number not in known:
            _refuse(node, f"iothreadpin names I/O thread {number}, which <iothreads>/<iothreadids> do not define")
        if number in pins:
            _refuse(node, f"I/O thread {number} has two iothreadpin elements")
        pins[number] = _pin(node, f"cputune/iothreadpin[@iothread='{number}']")
    return pins


def _placement(node: Element | None, element: str, choices: tuple[str, ...]) -> str | None:
    placement = None if node is None else attribute(node, "placement")
    if placement is not None and placement not in choices:
        _refuse(node, f"{element}/@placement is {shown(placement)}; libvirt takes {' or '.join(choices)}")
    return placement


def _cpuset_of_vcpu(vcpu: Element | None) -> Pin | None:
    """Return <vcpu cpuset>, which libvirt does not even read under placement='auto'."""
    if _placement(vcpu, "vcpu", ("static", "auto")) == "auto" or vcpu is None:
        return None
    return None if attribute(vcpu, "cpuset") is None else _pin(vcpu, "vcpu/@cpuset")


def _automatic(domain: Element, vcpu: Element | None, numad: Element | None, *, pinned: bool) -> Pin | None:
    """Return numad's choice as the default pin, or None where placement is static.

    <numatune> alone says nothing about cores; but where its memory placement is 'auto' and the domain
    pins nothing at all, libvirt lets numad place the threads too.
    """
    tunings = domain.findall("numatune")
    if len(tunings) > 1:
        _refuse(tunings[1], "there are two numatune elements; libvirt takes one")
    memory = domain.find("numatune/memory")
    advised = _placement(memory, "numatune/memory", ("default", "static", "auto")) == "auto"
    if vcpu is not None and _placement(vcpu, "vcpu", ("static", "auto")) == "auto":
        pin = Pin(None, "vcpu/@placement", "auto", vcpu.sourceline)
    elif memory is not None and advised and not pinned:
        pin = Pin(None, "numatune/memory/@placement", "auto", memory.sourceline)
    else:
        return None
    if numad is not None and attribute(numad, "cpuset") is not None:
        return replace(pin, mask=_pin(numad, "numad").mask)
    return pin

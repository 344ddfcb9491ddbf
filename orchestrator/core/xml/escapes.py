"""Threads of a QEMU process that leave the emulator's cores on QEMU's own orders, not libvirt's.

QEMU starts its other threads (workers, ``-object iothread``, display servers) from its main thread, so they
inherit the emulator's cores. The exception, since QEMU 7.2, is ``-object thread-context``: a thread that sets
its own affinity when it is created and hands it on to the threads that preallocate memory through it
(qapi/qom.json, ThreadContextProperties). A <qemu:commandline> may ask for one, and libvirt itself makes
one where it preallocates memory for given host nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.xml.cpuset import CORE_LIMIT, cores_in, plain
from orchestrator.core.xml.elements import Element
from orchestrator.core.xml.pinning import attribute
from orchestrator.core.xml.verdict import Exposure

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_EVERY_CORE = (1 << CORE_LIMIT) - 1
_CORES = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def escapes(domain: Element, reserved: int) -> Iterator[Exposure]:
    """Yield what <qemu:commandline> lets escape to the cores in the bit mask `reserved`."""
    arguments = domain.findall(f"{_QEMU}commandline/{_QEMU}arg")
    values = [attribute(node, "value") or "" for node in arguments]
    for position, option in enumerate(values[:-1], start=1):
        cores = cores_in(reserved & _reach(values[position])) if option in ("-object", "--object") else ()
        if cores:
            yield Exposure(
                thread="thread-context",
                cores=cores,
                element=f"qemu:commandline/qemu:arg[{position + 1}]",
                line=arguments[position].sourceline,
                missing=False,
                reason=f"-object {plain(values[position], 120)}: QEMU gives this thread cores of its own, "
                f"and {format_cpulist(cores)} can be among them whatever emulatorpin says; drop the affinity",
            )


def _reach(value: str) -> int:
    """Return the cores, as a bit mask, that the affinities in the value of one -object can reach."""
    try:
        fields = _fields(value)
    except (ValueError, RecursionError):
        # QEMU's JSON is wider than the standard; what cannot be read here is taken for the worst.
        return _EVERY_CORE if "affinity" in value else 0
    if ("qom-type", "thread-context") not in fields:
        return 0
    mask = 0
    for key, text in fields:
        if key == "node-affinity":
            return _EVERY_CORE  # which cores the host's nodes have is not in the XML
        if key == "cpu-affinity":
            mask |= _span(text)
    return mask


def _fields(value: str) -> list[tuple[str, str]]:
    """Return the keys and values of an -object, written ``TYPE,key=value`` or in JSON; lists item by item."""
    if not value.lstrip().startswith("{"):
        first, *rest = value.split(",")
        named = first if "=" in first else f"qom-type={first}"
        return [field.partition("=")[::2] for field in (named, *rest)]
    fields: list[tuple[str, str]] = []
    for key, content in json.loads(value).items():
        fields += [(key, str(item)) for item in (content if isinstance(content, list) else [content])]
    return fields


def _span(text: str) -> int:
    """Return one core or one range of cores as a bit mask; a text that is neither, as every core."""
    match = _CORES.fullmatch(text)
    if match is None:
        return _EVERY_CORE
    first, last = sorted((int(match[1]), int(match[2] or match[1])))
    return (1 << last + 1) - (1 << first)


def cautions(domain: Element) -> tuple[str, ...]:
    """Return, a line each, what could make threads escape but cannot be settled from the XML."""
    found = []
    if _preallocates(domain) and _names_host_nodes(domain) and not _forbids_thread_contexts(domain):
        found.append(
            "memory is preallocated on given host nodes: from libvirt 9.0 with QEMU 7.2 on, threads that do "
            "so at start may use every core of these nodes, unless libvirt's cpuset cgroup holds them back"
        )
    values = [attribute(node, "value") for node in domain.findall(f"{_QEMU}commandline/{_QEMU}arg")]
    if "-readconfig" in values or "--readconfig" in values:
        found.append("QEMU reads more options from a file (-readconfig), which is not judged here")
    return tuple(found)


def _preallocates(domain: Element) -> bool:
    allocations = domain.findall("memoryBacking/allocation")
    return domain.find("memoryBacking/hugepages") is not None or any(
        attribute(node, "mode") == "immediate" for node in allocations
    )


def _forbids_thread_contexts(domain: Element) -> bool:
    """Return whether libvirt is told to do as if QEMU had no thread-context (qemuProcessStartUpdateCustomCaps)."""
    forbidden = domain.findall(f"{_QEMU}capabilities/{_QEMU}del")
    return any(attribute(node, "capability") == "thread-context" for node in forbidden)


def _names_host_nodes(domain: Element) -> bool:
    """Return whether QEMU is told host nodes; under the mode 'restrictive' only a cgroup is."""
    tuned = domain.findall("numatune/memory") + domain.findall("numatune/memnode")
    return domain.find("devices/memory/source/nodemask") is not None or any(
        attribute(node, "mode") != "restrictive" for node in tuned
    )

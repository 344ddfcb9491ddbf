"""Which files a guest's QEMU has to do with, by its domain's XML: those alone are to be open to it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from orchestrator.core.xml.metadata import NAMESPACE

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_MAPPED = re.compile(r"(?:^|,)mem-path=((?:[^,]|,,)+)")
_READ = ("os/kernel", "os/initrd", "os/loader", "os/dtb")


@dataclass(frozen=True, slots=True)
class Enclosure:
    """Paths: a program that is executed, files that are read, files that are written to, and directories of its own.

    Of the files `images` are disks, which may be based on others that no definition names, and `memory` what the
    guest's RAM is in: QEMU makes that file if it is not there. It has to do with the host's `network` where it is the
    guest's way there by itself; else another program is, or the kernel.
    """

    programs: frozenset[str]
    reads: frozenset[str]
    writes: frozenset[str]
    directories: frozenset[str]
    images: frozenset[str]
    memory: frozenset[str]
    network: bool


def enclosure(xml: str) -> Enclosure:
    """Return what a domain has to do with. O(size of the XML)."""
    domain = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False))
    arguments = [str(node.get("value")) for node in domain.iterfind(f"{_QEMU}commandline/{_QEMU}arg")]
    directories = domain.iterfind(f"metadata/{{{NAMESPACE}}}guest/{{{NAMESPACE}}}directory")
    written, read, images = set(_nvram(domain)), {text for path in _READ if (text := domain.findtext(path))}, set()
    for disk in domain.iterfind("devices/disk"):
        sources = [path for node in disk.iter("source") for path in (node.get("file"), node.get("dev")) if path]
        images.update(sources)
        (read if disk.find("readonly") is not None else written).update(sources[:1])
        read.update(sources[1:])  # what is below it is never written to
    memory: set[str] = set()
    for argument in arguments:
        if (mapped := _MAPPED.search(argument)) is not None:
            (read if "readonly=on" in argument.split(",") else memory).add(_plain(mapped[1]))
    return Enclosure(
        programs=frozenset(str(node.text) for node in domain.iterfind("devices/emulator")),
        reads=frozenset(read),
        writes=frozenset(written | memory),
        directories=frozenset(str(node.text) for node in directories),
        images=frozenset(images),
        memory=frozenset(memory),
        network=domain.find("devices/interface[@type='user']") is not None,
    )


def _nvram(domain: etree._Element) -> Iterator[str]:
    node = domain.find("os/nvram")
    if node is not None and node.text:
        yield node.text


def _plain(text: str) -> str:
    return text.replace(",,", ",")

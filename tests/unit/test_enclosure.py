"""Which files a domain has to do with, by the XML that libvirt is given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.model import Architecture, Disk, DiskFormat, Network, NetworkKind
from orchestrator.core.xml.domain import RamFile, Window
from orchestrator.core.xml.enclosure import enclosure
from orchestrator.core.xml.render import render
from tests.golden.cases import CASES, KERNEL, domain

DISKS = (
    Disk(path="/srv/data.raw", format=DiskFormat.RAW),
    Disk(path="/srv/tools.qcow2", format=DiskFormat.QCOW2, overlay=True),
    Disk(path="/srv/rest.raw", format=DiskFormat.RAW, readonly=True),
)


def test_what_a_guest_reads_and_what_it_writes_to() -> None:
    found = enclosure(render(domain(Architecture.X86_64, KERNEL, disks=DISKS)))
    run = "/run/orchestrator/guests/guest"
    assert found.programs == {"/usr/bin/qemu-system-x86_64"}
    assert found.reads == {KERNEL.kernel, KERNEL.initrd, "/srv/tools.qcow2", "/srv/rest.raw"}
    assert found.writes == {"/srv/data.raw", f"{run}/vdb.overlay.qcow2"}
    assert found.images == {"/srv/data.raw", "/srv/tools.qcow2", "/srv/rest.raw", f"{run}/vdb.overlay.qcow2"}
    assert found.directories == {run}
    assert not found.network
    assert enclosure(render(domain(network=Network(kind=NetworkKind.USER)))).network
    assert not enclosure(render(domain(network=Network(kind=NetworkKind.BRIDGE, name="br0")))).network


@pytest.mark.parametrize("path", ["/srv/payload", "/srv/a, b,c"])
def test_a_payload_that_is_looked_at_is_only_read_and_one_that_is_memory_is_opened_for_writing(path: str) -> None:
    window = enclosure(render(replace(domain(), window=Window(path, 1 << 20))))
    assert path in window.reads
    assert path not in window.writes
    memory = enclosure(render(replace(domain(), ram_file=RamFile(path))))
    assert path in memory.writes
    assert memory.memory == {path}
    assert window.memory == set()


@pytest.mark.parametrize("name", CASES)
def test_every_domain_has_a_program_and_a_directory(name: str) -> None:
    guest = CASES[name]
    found = enclosure(render(guest))
    assert found.programs == {guest.emulator}
    assert found.directories == {guest.directory}

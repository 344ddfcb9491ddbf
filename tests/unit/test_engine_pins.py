"""Guests whose files are their users': opened with his rights and held fast, and nothing else is a disk."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.core.files import HEADER_BYTES, GuestFile, guest_files, image_size, image_trouble
from orchestrator.core.model import Disk, DiskFormat
from orchestrator.errors import FailedError
from orchestrator.launch import Guest
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import FakeHost, Faults

DISKS = (
    Disk(path="/home/al/a.raw", format=DiskFormat.RAW),
    Disk(path="/home/al/b,c.qcow2", format=DiskFormat.QCOW2, overlay=True),
)


def started(host: FakeHost, *guests: Guest) -> None:
    async def story() -> None:
        engine = engine_on(host)
        async with going(engine):
            await engine.start(guests)

    asyncio.run(story())


def pinned(name: str = "beat") -> Guest:
    return replace(guest(name, disks=DISKS), pinned=True)


def test_every_file_is_opened_for_its_owner_and_qemu_is_given_what_was() -> None:
    host = FakeHost()
    started(host, pinned())
    files = host.files["beat"]
    assert {name: text.decode() for name, text in files.items()} == {
        "pin.boot.payload": "alice: /payloads/heartbeat.elf",
        "pin.disk.0.path": "alice: /home/al/a.raw",
        "pin.disk.1.path": "alice: /home/al/b,c.qcow2",
        "vdb.overlay.qcow2": "/run/orchestrator/guests/beat/pin.disk.1.path",
    }
    named = host.named("beat")
    assert named is not None
    assert {path.rpartition("/")[2] for path in named.images.values()} == set(files) - {"pin.boot.payload"}


def test_a_file_that_its_owner_cannot_open_keeps_the_guest_from_starting() -> None:
    host = FakeHost(closed={"/home/al/a.raw": "cannot be opened by alice"})
    with pytest.raises(FailedError, match=r"/home/al/a\.raw cannot be opened by alice"):
        started(host, pinned())
    assert host.domains == {}
    started(FakeHost(closed=host.closed), guest(disks=DISKS))  # who is trusted needs nobody's rights


@pytest.mark.parametrize("path", ["/etc/shadow", "/run/orchestrator/guests/other/vda.overlay.qcow2"])
def test_an_image_that_leads_to_another_file_ends_the_guest_before_it_runs(path: str) -> None:
    host = FakeHost(Faults(leads_to={"beat": path}))
    with pytest.raises(FailedError, match=f"an image of its disks leads to another file \\({path}\\)"):
        started(host, pinned())
    assert host.domains == {}
    assert "continue beat" not in host.trace
    started(FakeHost(host.faults), guest(disks=DISKS))


def test_disks_that_have_grown_since_they_were_counted_end_the_guest_before_it_runs() -> None:
    host = FakeHost(Faults(grown={"beat": 3 << 20}))
    told = "beat: stopped, its disks have 3 MiB now, and it was let in with 2 MiB; `orchestrator start` has them"
    with pytest.raises(FailedError, match=told):
        started(host, replace(pinned(), disk=2 << 20))
    assert host.domains == {}
    assert "continue beat" not in host.trace
    started(FakeHost(host.faults), replace(pinned(), disk=3 << 20))


def test_a_pin_has_a_name_at_which_no_option_ends() -> None:
    names = {file.key: file.pin for file in guest_files(pinned().spec)}
    assert names == {
        "boot.payload": "pin.boot.payload",
        "disk[0].path": "pin.disk.0.path",
        "disk[1].path": "pin.disk.1.path",
    }
    assert [file.writable for file in guest_files(pinned().spec)] == [False, True, False]
    assert GuestFile("boot.initrd", "/a,/etc/shadow").pin == "pin.boot.initrd"


def header(version: int = 3, backing: int = 0, features: int = 0, size: int = 1 << 20) -> bytes:
    fields = [(0x514649FB, 4), (version, 4), (backing, 8), (0, 4), (16, 4), (size, 8)]
    start = b"".join(value.to_bytes(width, "big") for value, width in fields)
    return start.ljust(72, b"\0") + features.to_bytes(8, "big")


def test_an_image_that_names_other_files_is_known_by_its_header() -> None:
    qcow2 = DiskFormat.QCOW2
    assert len(header()) == HEADER_BYTES
    assert image_trouble(header(), qcow2) == image_trouble(header(features=1), qcow2) == ""
    assert image_trouble(header(version=2, features=4), qcow2) == ""  # which has no features
    assert image_trouble(header(backing=1), qcow2).startswith("is based on another image")
    assert image_trouble(header(features=4), qcow2).startswith("keeps its data in another file")
    assert image_trouble(header()[:-1], qcow2) == image_trouble(bytes(80), qcow2) == "is not in the format qcow2"
    assert image_trouble(header(backing=1), DiskFormat.RAW) == image_trouble(b"", None) == ""
    assert (image_size(header(), qcow2, 512), image_size(header(), DiskFormat.RAW, 513)) == (1 << 20, 1024)

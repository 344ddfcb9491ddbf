"""Back ends: their arguments, their place in a guest's start and end, and what they make impossible."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config import decode_guest
from orchestrator.core.backends import BackEnd, Kind, back_ends, kinds, written_outside
from orchestrator.core.cloning import unclonable, unsavable
from orchestrator.core.model import Disk, DiskBackend, DiskFormat, Share, Tpm
from orchestrator.core.xml.domain import Domain
from orchestrator.errors import FailedError
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import FakeHost, Faults
from tests.golden.cases import SERVED, SHARES, domain

IMAGE = Disk(path="/images/a.raw", format=DiskFormat.RAW, backend=DiskBackend.VHOST_USER)
ALL: dict[str, Any] = {"disks": (IMAGE,), "shares": (Share(path="/srv", tag="t"),), "tpm": Tpm()}
RUN = "/run/orchestrator/guests"


def of_disk(disk: Disk, *, pinned: bool = False) -> tuple[BackEnd, list[dict[str, object]]]:
    """Return the back end of a disk, and what it is told: its block nodes, and then its export."""
    (found,) = back_ends(replace(domain(disks=(disk,)), pinned=pinned))
    words = found.arguments
    assert set(words[:-2:2]) == {"--blockdev"}
    assert words[-2] == "--export"
    return found, [json.loads(each) for each in words[1::2]]


def test_an_image_is_opened_by_its_path_or_by_number_where_it_was_opened_for_its_owner() -> None:
    disk = replace(IMAGE, format=DiskFormat.QCOW2)
    plain, (file, image, export) = of_disk(disk)
    assert (plain.name, plain.kind, plain.files) == ("vda", Kind.DISK, ())
    assert (file["filename"], file["driver"], image["driver"]) == ("/images/a.raw", "file", "qcow2")
    assert "backing" not in image  # what it is based on is found from its path
    assert (export["node-name"], export["writable"], export["num-queues"]) == ("image", True, 2)
    assert export["addr"] == {"type": "fd", "str": "3"}
    pinned, (file, image, _) = of_disk(disk, pinned=True)
    assert pinned.files == ((f"{RUN}/guest/pin.disk.0.path", True),)
    assert (file["filename"], image["backing"]) == ("/proc/self/fd/4", None)


@pytest.mark.parametrize(("pinned", "number"), [(False, "4"), (True, "5")])
def test_what_is_written_goes_to_the_layer_where_there_is_one(pinned: bool, number: str) -> None:
    found, (file, image, layer_file, layer, export) = of_disk(replace(IMAGE, overlay=True), pinned=pinned)
    assert found.files[-1] == (f"{RUN}/guest/vda.overlay.qcow2", True)
    assert [writable for _, writable in found.files[:-1]] == [False] * pinned
    assert [node["read-only"] for node in (file, image, layer_file, layer)] == [True, True, False, False]
    assert layer_file["filename"] == f"/proc/self/fd/{number}"
    assert (layer["driver"], layer["backing"], export["node-name"]) == ("qcow2", "image", "layer")


def test_a_disk_that_is_readonly_is_so_for_the_guest_too() -> None:
    _, (file, image, export) = of_disk(replace(IMAGE, readonly=True))
    assert (file["read-only"], image["read-only"], export["writable"]) == (True, True, False)


def test_each_back_end_has_a_name_of_its_own_whose_socket_the_guest_is_given() -> None:
    guest = domain(disks=(*SERVED, Disk(path="/x", format=DiskFormat.RAW)), shares=SHARES, tpm=Tpm(state="/srv/tpm"))
    found = {each.name: each for each in back_ends(guest)}
    assert list(found) == ["vda", "vdb", "vdc", "vdd", "vde", "share0", "share1", "tpm"]
    assert kinds(guest.spec) == (Kind.DISK, Kind.SHARE, Kind.TPM)
    assert [(each.folder, each.readonly) for each in found.values()][5:] == [
        ("/srv/files", False),
        ("/srv/tools", True),
        ("/srv/tpm", False),
    ]
    longest = max(map(len, found))
    assert longest <= len("monitor")  # whose socket's length is checked


def test_a_tpm_without_a_folder_forgets() -> None:
    (found,) = back_ends(domain(tpm=Tpm()))
    assert not found.folder.startswith("/")


def test_only_what_is_written_is_counted() -> None:
    assert list(written_outside(replace(domain(disks=SERVED), pinned=True))) == [
        f"{RUN}/guest/pin.disk.{index}.path" for index in (0, 1, 3, 4)
    ]


@pytest.mark.parametrize(
    ("guest", "words"),
    [
        (domain(disks=(IMAGE,)), "the storage daemon of its disk vda keeps data in memory"),
        (domain(shares=SHARES), "known to virtiofsd alone"),
        (domain(tpm=Tpm()), "counters and locks are never to go back"),
    ],
)
def test_what_is_beside_qemu_is_in_no_state(guest: Domain, words: str) -> None:
    (reason,) = unsavable(guest.spec)
    assert words in reason
    assert reason in unclonable(guest)
    assert not unsavable(domain(disks=(Disk(path="/x", format=DiskFormat.RAW),)).spec)


# In a guest's life.


def test_they_begin_before_qemu_and_end_after_it() -> None:
    host = FakeHost()

    async def story() -> None:
        engine = engine_on(host)
        async with going(engine):
            await engine.start([guest(**ALL)])
            assert set(engine.guests["beat"].back_ends) == {"vda", "share0", "tpm"}
            await engine.stop(["beat"])

    asyncio.run(story())
    wanted = [f"{what} beat" for what in ("prepare", "start back ends", "define", "remove", "end back ends", "discard")]
    assert [step for step in host.trace if step in wanted] == wanted


def test_a_guest_without_any_starts_none() -> None:
    host = FakeHost()

    async def story() -> None:
        engine = engine_on(host)
        async with going(engine):
            await engine.start([guest()])

    asyncio.run(story())
    assert not [step for step in host.trace if "back ends" in step]


@pytest.mark.parametrize(("pinned", "owner"), [(True, "alice"), (False, None)])
def test_they_have_the_rights_of_the_owner_where_those_are_not_ours(pinned: bool, owner: str | None) -> None:
    host = FakeHost()

    async def story() -> None:
        engine = engine_on(host)
        async with going(engine):
            await engine.start([replace(guest(**ALL), pinned=pinned)])

    asyncio.run(story())
    assert {each.owner for each in host.back_ends[f"{RUN}/beat"].values()} == {owner}


def test_where_they_cannot_be_started_nothing_of_the_guest_is_left() -> None:
    host = FakeHost(Faults(no_back_ends=["beat"]))

    async def story() -> None:
        engine = engine_on(host)
        async with going(engine):
            with pytest.raises(FailedError, match="told to fail"):
                await engine.start([guest(**ALL)])

    asyncio.run(story())
    assert "define beat" not in host.trace
    assert "discard beat" in host.trace
    assert not host.back_ends


def test_disks_that_have_grown_since_they_were_counted_do_not_run_from_beside_either() -> None:
    async def story(disk: int) -> None:
        engine = engine_on(FakeHost(sizes={"/images/a.raw": 4 << 20}))
        async with going(engine):
            await engine.start([replace(guest(disks=(IMAGE,)), pinned=True, disk=disk)])

    asyncio.run(story(4 << 20))
    with pytest.raises(FailedError, match="its disks have 4 MiB now"):
        asyncio.run(story(3 << 20))


def test_a_scheduler_that_comes_back_knows_those_of_its_guests_and_ends_all_others() -> None:
    host = FakeHost()

    async def first() -> None:
        engine = engine_on(host)
        async with going(engine):
            await engine.start([guest(**ALL), guest("lost", **ALL)])

    async def second() -> list[str]:
        host.events = asyncio.Queue()
        for each in host.domains.values():
            each.listeners.clear()
        lost = host.named("lost")
        assert lost is not None
        del host.domains[lost.uuid]
        engine = engine_on(host)
        notes = await engine.adopt(decode_guest)
        assert set(engine.guests["beat"].back_ends) == {"vda", "share0", "tpm"}
        return notes

    asyncio.run(first())
    assert asyncio.run(second()) == ["lost: ended"]
    assert set(host.back_ends) == {f"{RUN}/beat"}

"""The Hypervisor port: the fake and libvirt's embedded QEMU driver agree on every case.

The guests here are started paused and without pins, so that two cores are enough.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from lxml import etree

from orchestrator.config import encode_guest
from orchestrator.core.model import Architecture, Boot, Disk, DiskBoot, DiskFormat, GuestSpec, KernelBoot, Size
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.render import render
from orchestrator.errors import FailedError
from orchestrator.host.embed import prepare_root
from orchestrator.host.hypervisor import LibvirtHypervisor
from orchestrator.host.monitor import QmpMonitors
from orchestrator.host.processes import ProcFs, become_subreaper
from orchestrator.ports import SHUT_OFF, DomainEventKind, Hypervisor
from tests.fakes.host import FakeHost, Faults
from tests.fakes.hypervisor import FakeHypervisor

ONE, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
LIMIT = 30.0  # seconds after which something that must come is taken to be missing

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def domain(directory: Path, name: str, uuid: str) -> Domain:
    """Return a PC that would boot from an empty disk; one called doomed names a kernel that is not there."""
    image = directory / "disk.raw"
    image.write_bytes(bytes(1 << 16))
    run = directory / name
    run.mkdir(exist_ok=True)
    boot: Boot = KernelBoot(kernel=str(directory / "nowhere")) if name == "doomed" else DiskBoot(disk="vda")
    spec = GuestSpec(
        name=name,
        architecture=Architecture.X86_64,
        vcpus=1,
        memory=Size.parse("16 MiB"),
        boot=boot,
        disks=(Disk(path=str(image), format=DiskFormat.RAW, readonly=True),),
    )
    return Domain(
        spec=spec,
        placement=Placement(pool=Pool(frozenset({2, 3})), vcpus=(2,), emulator=(2,), held=(3,)),
        accelerator=Accelerator.TCG,
        owner="alice <&>",
        specification=encode_guest(spec),
        emulator=shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64",
        directory=str(run),
        uuid=uuid,
    )


def unpinned(xml: str) -> str:
    """Drop the pins, for this host may not have the cores; the metadata still names them."""
    tree = etree.fromstring(xml.encode())
    tree.remove(tree.find("cputune"))
    del tree.find("vcpu").attrib["cpuset"]
    return str(etree.tostring(tree, encoding="unicode"))


class Side(Protocol):
    """One of the two that must agree."""

    def opened(self) -> Any:
        """Return an async context manager that yields the hypervisor."""

    def kill(self, uuid: str) -> None:
        """Have the process of a guest die."""

    async def vcpus(self, guest: Domain) -> dict[int, set[int] | None]:
        """Return where the thread of each vCPU may run; None for the first, which has no pin here."""


@dataclass
class FakeSide:
    host: FakeHost

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Hypervisor]:
        yield FakeHypervisor(self.host)

    def kill(self, uuid: str) -> None:
        self.host.ends(self.host.domains[uuid].name)

    async def vcpus(self, guest: Domain) -> dict[int, set[int] | None]:
        there = self.host.domains[str(guest.uuid)]
        return {index: set(there.threads[tid].allowed) if index else None for index, tid in there.roles.vcpus.items()}


@dataclass
class EmbeddedSide:
    root: Path

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Hypervisor]:
        hypervisor = await LibvirtHypervisor.open(f"qemu:///embed?root={self.root}")
        reaping = asyncio.create_task(self._reap())
        try:
            yield hypervisor
        finally:
            for each in await hypervisor.domains():
                await hypervisor.remove(each.uuid)
            reaping.cancel()
            await hypervisor.close()

    async def _reap(self) -> None:
        while True:
            ProcFs().reap()
            await asyncio.sleep(0.02)

    def kill(self, uuid: str) -> None:
        pid = ProcFs().find(uuid)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def vcpus(self, guest: Domain) -> dict[int, set[int] | None]:
        monitor = await QmpMonitors().connect(guest.monitor_socket)
        roles = await monitor.thread_roles()
        await monitor.close()
        return {index: os.sched_getaffinity(tid) if index else None for index, tid in roles.vcpus.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return one root for all: a process can open no second one."""
    become_subreaper()
    base = tmp_path_factory.mktemp("embed")
    prepare_root(base / "root", base / "cache")
    yield base / "root"
    ProcFs().reap()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)  # what other tests start and leave is not ours to reap


@pytest.fixture(params=["fake", "embedded"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "fake":
        return FakeSide(FakeHost(Faults(start=["doomed"])))
    return EmbeddedSide(request.getfixturevalue("root"))


def test_a_started_domain_is_listed_as_paused_with_all_that_it_says_of_itself(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            assert await hypervisor.domains() == []
            wanted = domain(tmp_path, "beat", ONE)
            await hypervisor.start_paused(unpinned(render(wanted)))
            (found,) = await hypervisor.domains()
            assert (found.name, found.uuid, found.state) == ("beat", ONE, "paused")
            assert found.metadata.owner == "alice <&>"
            assert found.metadata.specification == wanted.specification
            assert found.metadata.directory == wanted.directory
            assert (found.metadata.vcpus, found.metadata.emulator, found.metadata.held) == ((2,), (2,), (2, 3))

    asyncio.run(story())


def test_domains_are_listed_by_name(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            for number, name in enumerate(("zebra", "ant", "moth")):
                await hypervisor.start_paused(unpinned(render(domain(tmp_path, name, f"{number}{ONE[1:]}"))))
            assert [each.name for each in await hypervisor.domains()] == ["ant", "moth", "zebra"]

    asyncio.run(story())


def test_who_is_paused_by_its_user_says_so_until_it_is_resumed_and_loses_nothing_else(
    side: Side, tmp_path: Path
) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            by_policy = replace(domain(tmp_path, "beat", ONE), by_policy=True)
            await hypervisor.start_paused(unpinned(render(by_policy)))
            (before,) = await hypervisor.domains()
            assert before.metadata.by_policy
            for paused in (True, True, False, False, True):
                await hypervisor.mark_paused(ONE, paused=paused)
                (found,) = await hypervisor.domains()
                assert found.metadata == replace(before.metadata, paused=paused)

    asyncio.run(story())


def test_where_a_guest_is_to_be_stands_in_its_metadata_and_nothing_else_is_lost(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", ONE))))
            await hypervisor.mark_paused(ONE, paused=True)
            (before,) = await hypervisor.domains()
            pool = Pool(frozenset({2, 3, 4, 5}))
            await hypervisor.mark_placed(ONE, Placement(pool=pool, vcpus=(5, 3), emulator=(4,), held=(2,)))
            (found,) = await hypervisor.domains()
            assert found.metadata == replace(before.metadata, vcpus=(5, 3), emulator=(4,), held=(2, 3, 4, 5))
            await hypervisor.mark_paused(ONE, paused=False)
            (found,) = await hypervisor.domains()
            assert (found.metadata.vcpus, found.metadata.paused) == ((5, 3), False)
            with pytest.raises(FailedError, match="its metadata cannot be changed"):
                await hypervisor.mark_placed(OTHER, Placement(pool=pool, vcpus=(5,), emulator=(4,)))

    asyncio.run(story())


def test_vcpus_are_plugged_in_up_to_the_most_and_each_begins_on_its_core(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            plain = domain(tmp_path, "beat", ONE)
            grows = replace(plain, spec=replace(plain.spec, max_vcpus=3))
            await hypervisor.start_paused(unpinned(render(grows)))
            assert await side.vcpus(grows) == {0: None}
            await hypervisor.set_vcpus(ONE, (1, 0))
            assert await side.vcpus(grows) == {0: None, 1: {0}}
            await hypervisor.set_vcpus(ONE, (1, 0, 1))
            assert await side.vcpus(grows) == {0: None, 1: {0}, 2: {1}}
            await hypervisor.set_vcpus(ONE, (1, 0, 1))  # as it is already
            with pytest.raises(FailedError, match="its vCPUs cannot be made 4"):
                await hypervisor.set_vcpus(ONE, (1, 0, 1, 0))
            with pytest.raises(FailedError, match="its vCPUs cannot be made 2"):
                await hypervisor.set_vcpus(OTHER, (1, 0))
            assert len(await side.vcpus(grows)) == 3

    asyncio.run(story())


def test_a_removed_domain_is_gone_and_its_end_is_told(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", ONE))))
            assert await hypervisor.remove(ONE) is True
            assert await hypervisor.domains() == []
            assert await hypervisor.remove(ONE) is False
            event = await asyncio.wait_for(anext(hypervisor.events()), LIMIT)
            assert (event.name, event.kind, event.detail) == ("beat", DomainEventKind.STOPPED, "destroyed")

    asyncio.run(story())


def test_a_removed_domain_can_be_started_anew(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            for _ in range(2):
                await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", ONE))))
                assert await hypervisor.remove(ONE) is True

    asyncio.run(story())


@pytest.mark.parametrize("xml", ["no XML", "<domain type='qemu'><name>beat</name>"])
def test_what_is_no_definition_is_refused(side: Side, xml: str) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            with pytest.raises(FailedError, match=r"^libvirt refuses the definition: "):
                await hypervisor.start_paused(xml)
            assert await hypervisor.domains() == []

    asyncio.run(story())


def test_of_a_guest_that_does_not_start_nothing_is_left(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            with pytest.raises(FailedError, match=r"^the guest does not start: "):
                await hypervisor.start_paused(unpinned(render(domain(tmp_path, "doomed", ONE))))
            assert await hypervisor.domains() == []
            assert await hypervisor.remove(ONE) is False

    asyncio.run(story())


def test_another_domain_of_the_same_name_is_refused_and_leaves_the_first_alone(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", ONE))))
            with pytest.raises(FailedError, match=r"^libvirt refuses the definition: "):
                await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", OTHER))))
            assert await hypervisor.remove(OTHER) is False
            assert [(each.uuid, each.state) for each in await hypervisor.domains()] == [(ONE, "paused")]

    asyncio.run(story())


def test_a_process_that_dies_is_told_as_a_crash(side: Side, tmp_path: Path) -> None:
    async def story() -> None:
        async with side.opened() as hypervisor:
            await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", ONE))))
            side.kill(ONE)
            event = await asyncio.wait_for(anext(hypervisor.events()), LIMIT)
            assert (event.name, event.kind, event.detail) == ("beat", DomainEventKind.CRASHED, "QEMU failed")
            (found,) = await hypervisor.domains()
            assert found.state == SHUT_OFF
            await hypervisor.start_paused(unpinned(render(domain(tmp_path, "beat", ONE))))  # what is left is replaced
            (found,) = await hypervisor.domains()
            assert found.state == "paused"
            assert await hypervisor.remove(ONE) is True
            assert await hypervisor.domains() == []

    asyncio.run(story())

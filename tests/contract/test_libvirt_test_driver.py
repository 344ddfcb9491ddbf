"""LibvirtHypervisor on libvirt's test driver, which lives in memory: a running domain called test that is not ours.

It cannot start a domain paused, and it does not know UEFI: what a driver lacks is a clear failure that leaves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import libvirt
import pytest

from orchestrator.core.xml.metadata import NAMESPACE
from orchestrator.errors import FailedError, HostError
from orchestrator.host.hypervisor import LibvirtHypervisor

URI = "test:///default"
UUID = "11111111-1111-4111-8111-111111111111"
OURS = f"""
<orchestrator:guest xmlns:orchestrator="{NAMESPACE}" version="1">
  <orchestrator:owner>alice</orchestrator:owner>
  <orchestrator:accelerator>tcg</orchestrator:accelerator>
  <orchestrator:directory>/run/beat</orchestrator:directory>
  <orchestrator:vcpus>2</orchestrator:vcpus>
  <orchestrator:emulator>2</orchestrator:emulator>
  <orchestrator:held>2,3</orchestrator:held>
  <orchestrator:specification>{{}}</orchestrator:specification>
</orchestrator:guest>
"""


def xml(name: str = "beat", metadata: str = OURS) -> str:
    return f"""
    <domain type="test">
      <name>{name}</name> <uuid>{UUID}</uuid> <metadata>{metadata}</metadata>
      <memory>8192</memory> <os><type>hvm</type></os>
    </domain>"""


@pytest.fixture
def driver() -> Iterator[Any]:
    """Return a connection of the test's own: while it is open, others see what it defines."""
    connection = libvirt.open(URI)
    yield connection
    connection.close()


def with_hypervisor(act: Callable[[LibvirtHypervisor], Awaitable[None]]) -> None:
    async def story() -> None:
        hypervisor = await LibvirtHypervisor.open(URI)
        try:
            await act(hypervisor)
        finally:
            await hypervisor.close()

    asyncio.run(story())


def names(driver: Any) -> set[str]:
    return {domain.name() for domain in driver.listAllDomains()}


@pytest.mark.usefixtures("driver")
def test_domains_of_others_are_not_listed() -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        assert await hypervisor.domains() == []

    with_hypervisor(act)


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "<a:guest xmlns:a='urn:else' version='1'/>",
        OURS.replace('version="1"', 'version="2"'),
        OURS.replace("2,3", "two"),
        OURS.replace("tcg", "hvf"),
    ],
)
def test_domains_whose_metadata_say_nothing_to_us_are_not_listed(driver: Any, metadata: str) -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        assert await hypervisor.domains() == []

    driver.createXML(xml(metadata=metadata))
    with_hypervisor(act)
    assert names(driver) == {"test", "beat"}


def test_a_domain_of_ours_is_listed_and_can_be_removed_from_a_driver_that_knows_no_uefi(driver: Any) -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        (found,) = await hypervisor.domains()
        assert (found.name, found.uuid, found.state) == ("beat", UUID, "running")
        assert found.metadata.held == (2, 3)
        assert await hypervisor.remove(UUID) is True
        assert await hypervisor.remove(UUID) is False

    driver.defineXML(xml()).create()
    with_hypervisor(act)
    assert names(driver) == {"test"}


def test_a_driver_that_cannot_start_paused_is_a_failure_that_leaves_nothing(driver: Any) -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        with pytest.raises(FailedError, match=r"^the guest does not start: unsupported flags"):
            await hypervisor.start_paused(xml())
        assert await hypervisor.domains() == []

    with_hypervisor(act)
    assert names(driver) == {"test"}


def test_a_stranger_of_the_same_name_survives_a_start(driver: Any) -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        with pytest.raises(FailedError, match=r"^libvirt refuses the definition: .*'test' already exists"):
            await hypervisor.start_paused(xml(name="test"))
        assert await hypervisor.remove(UUID) is False

    with_hypervisor(act)
    assert driver.lookupByName("test").isActive()


def test_a_uuid_that_is_none_is_a_failure(driver: Any) -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        with pytest.raises(FailedError, match=r"^test: libvirt cannot look this domain up: "):
            await hypervisor.remove("test")

    with_hypervisor(act)
    assert names(driver) == {"test"}


def test_a_connection_that_is_closed_is_a_failure_and_closing_it_again_is_none() -> None:
    async def act(hypervisor: LibvirtHypervisor) -> None:
        await hypervisor.close()
        with pytest.raises(FailedError, match=r"^libvirt cannot list its domains: "):
            await hypervisor.domains()

    with_hypervisor(act)


def test_a_libvirt_that_cannot_be_reached_is_the_hosts_fault() -> None:
    with pytest.raises(HostError, match=r"^libvirt cannot be reached at nowhere:///x: .*orchestrator doctor"):
        asyncio.run(LibvirtHypervisor.open("nowhere:///x"))

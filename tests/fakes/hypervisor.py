"""libvirt in memory: reads the XML it is given and makes the threads that it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from lxml import etree

from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.placement import Placement
from orchestrator.core.xml.elements import Element
from orchestrator.core.xml.metadata import NAMESPACE, read_metadata
from orchestrator.core.xml.monitor import QEMU_NAMESPACE
from orchestrator.errors import FailedError, OutcomeUnknownError
from orchestrator.ports import SHUT_OFF, DomainEvent, LiveDomain, Thread, ThreadRoles
from tests.fakes.host import FakeDomain, FakeHost

_ANYWHERE = "0-7"


class FakeHypervisor:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    async def start_paused(self, xml: str) -> None:
        domain = self._defined(xml)
        self._host.trace.append(f"define {domain.name}")
        await self._host.clock.sleep(self._host.faults.start_seconds.get(domain.name, 0.0))
        if domain.name in self._host.faults.start:
            raise FailedError(f"the guest does not start: {domain.name} was told to fail")
        if domain.name in self._host.faults.leads_to:
            domain.images["#block012"] = self._host.faults.leads_to[domain.name]
        if domain.name in self._host.faults.grown:
            domain.disks[domain.images["libvirt-1-storage"]] = self._host.faults.grown[domain.name]
        self._host.domains[domain.uuid] = domain
        self._host.trace.append(f"start paused {domain.name}")

    async def remove(self, uuid: str) -> bool:
        domain = self._host.domains.get(uuid)
        if domain is None:
            return False
        if domain.name in self._host.faults.cannot_be_removed:
            raise FailedError(f"the guest could not be removed: {domain.name} was told to stay")
        if domain.pid is not None:
            self._host.ends(domain.name, "destroyed")
        del self._host.domains[uuid]
        self._host.trace.append(f"remove {domain.name}")
        return True

    async def mark_paused(self, uuid: str, *, paused: bool) -> None:
        domain = self._marked(uuid)
        staged = domain.metadata.staged and paused
        domain.metadata = replace(domain.metadata, paused=paused, staged=staged)

    async def mark_placed(self, uuid: str, placement: Placement) -> None:
        domain, where = self._marked(uuid), {key: getattr(placement, key) for key in ("vcpus", "emulator", "held")}
        self._host.trace.append(f"place {domain.name}")
        domain.metadata = replace(domain.metadata, **where)

    async def set_vcpus(self, uuid: str, cores: Sequence[int]) -> None:
        domain, faults = self._host.domains.get(uuid), self._host.faults
        if domain is None or domain.pid is None:
            raise FailedError(f"its vCPUs cannot be made {len(cores)}: no domain")
        if len(cores) > domain.most_vcpus or domain.name in faults.refuses_vcpus:
            raise FailedError(f"its vCPUs cannot be made {len(cores)}: it was told to refuse")
        self._host.trace.append(f"vcpus {len(cores)} {domain.name}")
        await asyncio.sleep(0)
        there = dict(domain.roles.vcpus)
        if len(cores) < len(there) and domain.name in faults.keeps_vcpus:
            raise OutcomeUnknownError(f"its vCPUs cannot be made {len(cores)}: it did not let go in time")
        for index in range(len(there), len(cores)):
            there[index] = tid = domain.pid + 10 + index
            domain.threads[tid] = _thread(tid, f"CPU {index}/TCG", frozenset({cores[index]}))
        for index in range(len(cores), len(domain.roles.vcpus)):
            del domain.threads[there.pop(index)]
        domain.roles = replace(domain.roles, vcpus=there)

    def _marked(self, uuid: str) -> Any:
        domain = self._host.domains.get(uuid)
        if domain is None or domain.metadata is None or domain.name in self._host.faults.unmarkable:
            raise FailedError(f"{uuid}: its metadata cannot be changed: no domain")
        return domain

    async def domains(self) -> Sequence[LiveDomain]:
        found = [
            LiveDomain(name=each.name, uuid=each.uuid, state=each.state, pid=None, metadata=each.metadata)
            for each in self._host.domains.values()
            if each.metadata is not None
        ]
        return sorted(found, key=lambda each: each.name)

    async def events(self) -> AsyncIterator[DomainEvent]:
        while True:
            yield await self._host.events.get()

    def _defined(self, xml: str) -> FakeDomain:
        try:
            tree = etree.fromstring(xml.encode())
        except etree.XMLSyntaxError as error:
            raise FailedError(f"libvirt refuses the definition: {error}") from error
        domain = _domain(tree, next(self._host.pids))
        other = self._host.named(domain.name)
        if other is not None and (other.uuid, other.state) != (domain.uuid, SHUT_OFF):
            raise FailedError(f"libvirt refuses the definition: {domain.name} exists as {other.uuid}")
        return domain


def _domain(tree: Element, pid: int) -> FakeDomain:
    most = int(tree.findtext("vcpu"))
    vcpus = range(int(tree.find("vcpu").get("current", most)))
    iothreads = range(1, int(tree.findtext("iothreads") or 0) + 1)
    emulator = _pinned(tree, "emulatorpin")
    threads = {pid: _thread(pid, "qemu-system-x86", emulator), pid + 1: _thread(pid + 1, "worker", emulator)}
    roles = ThreadRoles(
        vcpus={index: pid + 10 + index for index in vcpus}, iothreads={f"iothread{n}": pid + 50 + n for n in iothreads}
    )
    for index, tid in roles.vcpus.items():
        threads[tid] = _thread(tid, f"CPU {index}/TCG", _pinned(tree, "vcpupin", vcpu=index))
    for number, (name, tid) in enumerate(roles.iothreads.items(), 1):
        threads[tid] = _thread(tid, f"IO {name}", _pinned(tree, "iothreadpin", iothread=number))
    guest = tree.find(f"metadata/{{{NAMESPACE}}}guest")
    return FakeDomain(
        name=str(tree.findtext("name")),
        uuid=str(tree.findtext("uuid")),
        metadata=None if guest is None else read_metadata(guest),
        monitor=_monitor(tree),
        incoming=any(node.get("value") == "-incoming" for node in tree.iterfind(f"{{{QEMU_NAMESPACE}}}commandline/*")),
        threads=threads,
        roles=roles,
        pid=pid,
        most_vcpus=most,
        images={
            f"libvirt-{number}-storage": source.get("file")
            for number, source in enumerate(tree.iterfind("devices/disk[@type='file']//source"), 1)
        },
    )


def _pinned(tree: Element, tag: str, **which: int) -> frozenset[int]:
    conditions = "".join(f"[@{key}='{value}']" for key, value in which.items())
    pin = tree.find(f"cputune/{tag}{conditions}")
    return parse_cpulist(_ANYWHERE if pin is None else pin.get("cpuset"))


def _thread(tid: int, name: str, allowed: frozenset[int]) -> Thread:
    return Thread(tid=tid, name=name, allowed=allowed, last_core=min(allowed), cpu_seconds=0.0)


def _monitor(tree: Element) -> str:
    """Return the path of our own QMP socket, which libvirt only passes on."""
    arguments = [node.get("value") for node in tree.iterfind(f"{{{QEMU_NAMESPACE}}}commandline/*")]
    chardev = next((text for text in arguments if text.startswith("socket,id=orchestrator-monitor,")), "")
    return str(chardev.partition("path=")[2].partition(",server=")[0])

"""An engine on a host in memory, and guests for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from orchestrator.config import encode_guest
from orchestrator.core.discovery import discover
from orchestrator.core.model import Architecture, GuestSpec, PayloadBoot, Size
from orchestrator.core.policy import Policy
from orchestrator.core.topology import Topology
from orchestrator.core.xml.domain import Accelerator
from orchestrator.engine import Engine, Guest
from orchestrator.launch import Launcher
from tests.fakes.backends import FakeBackEnds
from tests.fakes.files import FakeFiles
from tests.fakes.host import FakeHost
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.monitor import FakeMonitors
from tests.fakes.payloads import FakePayloads
from tests.fakes.processes import FakeProcesses


def engine_on(host: FakeHost, cpus: str = "0-7", reserved: Iterable[int] = ()) -> Engine:
    """Return an engine on a plain host with these online CPUs, of which the policy reserves some: no SMT, one node."""
    topology = discover({"cpu/online": cpus}, reserved)
    return Engine(topology, Policy(), launcher_on(host, topology), host.clock)


def launcher_on(host: FakeHost, topology: Topology) -> Launcher:
    """Return a launcher on a host in memory."""
    return Launcher(
        topology,
        FakeHypervisor(host),
        FakeProcesses(host),
        FakeMonitors(host),
        FakeFiles(host),
        FakePayloads(host),
        FakeBackEnds(host),
    )


@contextlib.asynccontextmanager
async def going(engine: Engine) -> AsyncIterator[Engine]:
    """Let an engine run beside what is done in this context."""
    running = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def guest(name: str = "beat", vcpus: int = 1, **wishes: Any) -> Guest:
    """Return a small x86_64 guest to run under TCG."""
    spec = GuestSpec(
        name=name,
        architecture=Architecture.X86_64,
        vcpus=vcpus,
        memory=Size.parse("64 MiB"),
        boot=PayloadBoot(payload="/payloads/heartbeat.elf"),
        **wishes,
    )
    return Guest(
        spec=spec,
        specification=encode_guest(spec),
        owner="alice",
        emulator="/usr/bin/qemu-system-x86_64",
        accelerator=Accelerator.TCG,
    )

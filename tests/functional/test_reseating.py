"""Real guests that are moved and resized by the engine: libvirt, QEMU, a Linux, and the kernel's word on each thread.

The engine is shown cores 2 and 3, which are called 0 and 1 on their way out: a host without a pool will do.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from orchestrator.config import decode_guest, encode_guest, parse_guest
from orchestrator.core.discovery import discover
from orchestrator.core.policy import Policy
from orchestrator.core.xml.domain import Accelerator
from orchestrator.engine import Engine, Guest
from orchestrator.errors import FailedError
from orchestrator.host.clock import MonotonicClock
from orchestrator.launch import Launcher
from orchestrator.ports import Thread
from orchestrator.wiring.guests import build_launcher, open_hypervisor

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "domains" / "build"
GROWS = f"""
name = "grows"
architecture = "x86_64"
vcpus = 1
max_vcpus = 2
memory = "192 MiB"
mode = "exclusive"
[boot]
kernel = "{BUILD}/linux-x86_64.vmlinux"
initrd = "{BUILD}/linux-x86_64.cpio"
cmdline = "console=ttyS0 quiet no_timer_check noreplace-smp tsc=reliable nokaslr mitigations=off cryptomgr.notests"
"""
OUT = {2: 0, 3: 1}
BACK = {real: shown for shown, real in OUT.items()}
PATIENCE = 200.0


@dataclass
class Renumbered:
    """A port of the host, with cores renumbered on their way out and back; all else is passed on."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def start_paused(self, xml: str) -> None:
        domain = etree.fromstring(xml.encode())
        for node in domain.iterfind(".//*[@cpuset]"):
            node.set("cpuset", ",".join(str(OUT[int(core)]) for core in node.get("cpuset").split(",")))
        await self.inner.start_paused(etree.tostring(domain, encoding="unicode"))

    async def set_vcpus(self, uuid: str, cores: Sequence[int]) -> None:
        await self.inner.set_vcpus(uuid, tuple(OUT[core] for core in cores))

    def threads(self, pid: int) -> Sequence[Thread]:
        return tuple(
            replace(each, allowed=frozenset(BACK[core] for core in each.allowed), last_core=BACK[each.last_core])
            for each in self.inner.threads(pid)
        )

    def pin(self, tid: int, cores: frozenset[int]) -> None:
        self.inner.pin(tid, frozenset(OUT[core] for core in cores))


@asynccontextmanager
async def launcher() -> AsyncIterator[Launcher]:
    async with open_hypervisor("embed") as hypervisor:
        real = build_launcher(discover({"cpu/online": "0-3"}), hypervisor, "embed")
        yield replace(real, hypervisor=Renumbered(hypervisor), processes=Renumbered(real.processes))
        for domain in await hypervisor.domains():
            await hypervisor.remove(domain.uuid)


def guest() -> Guest:
    spec = parse_guest(GROWS.encode(), "grows.toml", directory="/").spec
    return Guest(
        spec=spec,
        specification=encode_guest(spec),
        owner="root",
        emulator="/usr/bin/qemu-system-x86_64",
        accelerator=Accelerator.TCG,
    )


def cores(engine: Engine) -> dict[str, set[int]]:
    """The cores of each vCPU's thread and of all others, from the kernel."""
    found: dict[str, set[int]] = {}
    pid = engine.guests["grows"].pid
    assert pid is not None
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        allowed = {BACK[core] for core in os.sched_getaffinity(int(task.name))}
        found.setdefault(name if name.startswith("CPU ") else "others", set()).update(allowed)
    return found


async def says(host: Launcher, text: bytes) -> None:
    log = Path(host.files.directory("grows")) / "serial.log"
    async with asyncio.timeout(PATIENCE):
        while text not in log.read_bytes():  # noqa: ASYNC110 (nobody tells of a line; the file is in memory)
            await asyncio.sleep(0.1)


async def with_engine(host: Launcher, act: Callable[[Engine], Awaitable[None]]) -> None:
    engine = Engine(host.topology, Policy(), host, MonotonicClock())
    await engine.adopt(decode_guest)
    running = asyncio.create_task(engine.run())
    try:
        await act(engine)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for each in engine.guests.values():  # as the end of a process does
            await each.monitor.close()


async def story() -> None:
    async with launcher() as host:

        async def live(engine: Engine) -> None:
            await engine.start([guest()])
            await engine.move("grows", [3])
            assert cores(engine) == {"CPU 0/TCG": {3}, "others": {3}}
            await says(host, b"processors 0\r\n")
            await engine.resize("grows", 2)
            assert cores(engine) == {"CPU 0/TCG": {3}, "CPU 1/TCG": {2}, "others": {2, 3}}
            assert engine.holders() == {2: "grows", 3: "grows"}
            await says(host, b"processors 0-1\r\n")
            await engine.resize("grows", 1)
            assert cores(engine) == {"CPU 0/TCG": {3}, "others": {3}}
            assert engine.holders() == {3: "grows"}
            with pytest.raises(FailedError, match="start the guest anew to grow it again"):
                await engine.resize("grows", 2)
            assert cores(engine) == {"CPU 0/TCG": {3}, "others": {3}}

        async def live_on(engine: Engine) -> None:
            assert engine.holders() == {3: "grows"}
            assert cores(engine) == {"CPU 0/TCG": {3}, "others": {3}}
            engine.look()
            assert engine.guests["grows"].drift == 0
            await engine.stop(["grows"])

        await with_engine(host, live)
        await with_engine(host, live_on)


def test_a_linux_is_moved_grows_shrinks_and_is_found_where_it_is(tmp_path: Path) -> None:
    """In a process of its own, since one process can open one root of the embedded driver."""
    assert os.sched_getaffinity(0) >= {0, 1}, "this test needs cores 0 and 1"
    told = "import asyncio; from tests.functional.test_reseating import story; asyncio.run(story())"
    variables = {**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

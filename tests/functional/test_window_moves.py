"""Real guests of which one is moved when a window of the policy opens: libvirt, QEMU, and the kernel's word on threads.

The engine is shown four pool cores on two NUMA nodes, which are two of this host's on their way out.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lxml import etree

from orchestrator.config import encode_guest, parse_guest
from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.discovery import discover
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.windows import effective
from orchestrator.core.xml.domain import Accelerator
from orchestrator.engine import Engine, Guest
from orchestrator.host.clock import MonotonicClock
from orchestrator.launch import Launcher
from orchestrator.planner import Planner
from orchestrator.policy_file import parse_policy
from orchestrator.ports import Thread
from orchestrator.quotas import Accounting
from orchestrator.wiring.guests import build_launcher, open_hypervisor
from tests.fakes.calendar import FakeCalendar

ROOT = Path(__file__).parents[2]
OUT = {2: 0, 3: 1, 4: 1, 5: 0}
HOST = {"cpu/online": "0-5", "node/node0/cpulist": "0-2", "node/node1/cpulist": "3-5"}
POLICY = """
[[window]]
name = "night"
cron = "0 22 * * *"
duration = "8 h"
change = "move"
"""
OPENS = datetime(2026, 3, 2, 22)
PATIENCE = 200.0


@dataclass
class Halved:
    """A port of the host whose cores are shown as twice as many; all else is passed on.

    The kernel's word on a thread is compared with where it was wanted to be, by the XML or a pin; where that is the
    same real core, it is where it was wanted, and else it is anywhere.
    """

    inner: Any
    wanted: dict[str, dict[str, frozenset[int]]] = field(default_factory=dict)
    pinned: dict[int, frozenset[int]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def start_paused(self, xml: str) -> None:
        domain = etree.fromstring(xml.encode())
        wanted = self.wanted[str(domain.findtext("name"))] = {}
        for node in domain.iterfind(".//*[@cpuset]"):
            shown = frozenset(parse_cpulist(node.get("cpuset")))
            wanted[f"CPU {node.get('vcpu')}/TCG" if node.tag == "vcpupin" else node.tag] = shown
            node.set("cpuset", ",".join(str(core) for core in sorted({OUT[core] for core in shown})))
        for node in domain.iterfind("numatune"):  # this host has no such nodes
            domain.remove(node)
        await self.inner.start_paused(etree.tostring(domain, encoding="unicode"))

    def threads(self, pid: int) -> Sequence[Thread]:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        wanted = self.wanted[command.partition("guest=")[2].partition(",")[0]]
        return tuple(self._shown(each, wanted) for each in self.inner.threads(pid))

    def pin(self, tid: int, cores: frozenset[int]) -> None:
        self.pinned[tid] = cores
        self.inner.pin(tid, frozenset(OUT[core] for core in cores))

    def _shown(self, thread: Thread, wanted: dict[str, frozenset[int]]) -> Thread:
        there = self.pinned.get(thread.tid, wanted.get(thread.name, wanted["emulatorpin"]))
        if {OUT[core] for core in there} != thread.allowed:
            there = frozenset(OUT)
        return replace(thread, allowed=there, last_core=next(core for core in OUT if OUT[core] == thread.last_core))


def guest(name: str, vcpus: int = 1) -> Guest:
    text = (
        f'name = "{name}"\narchitecture = "aarch64"\nvcpus = {vcpus}\nmemory = "32 MiB"\nmode = "exclusive"\n'
        f'[boot]\npayload = "{ROOT}/domains/build/heartbeat-aarch64.elf"\n'
    )
    spec = parse_guest(text.encode(), "guest.toml", directory="/").spec
    return Guest(
        spec=spec,
        specification=encode_guest(spec),
        owner="root",
        emulator="/usr/bin/qemu-system-aarch64",
        accelerator=Accelerator.TCG,
    )


def affinity(engine: Engine, name: str, thread: str) -> set[int]:
    """Return on which real cores the kernel lets a thread run."""
    (tid,) = [
        int(task.name)
        for task in Path(f"/proc/{engine.guests[name].pid}/task").iterdir()
        if (task / "comm").read_text().strip() == thread
    ]
    return os.sched_getaffinity(tid)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (nobody tells of what the kernel has done)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def host() -> AsyncIterator[Launcher]:
    async with open_hypervisor("embed") as hypervisor:
        real = build_launcher(discover(HOST), hypervisor, "embed")
        shown = Halved(real.processes)
        try:
            yield replace(real, hypervisor=Halved(hypervisor, shown.wanted), processes=shown)
        finally:
            for domain in await hypervisor.domains():
                await hypervisor.remove(domain.uuid)


async def story() -> None:
    clock, notices, lines = MonotonicClock(), list[Notice](), list[str]()
    policy, calendar = parse_policy(POLICY.encode(), "p.toml"), FakeCalendar(clock, OPENS)
    calendar.start -= timedelta(seconds=clock.now(), hours=6)
    async with host() as launcher:
        plain = effective(policy, calendar.local()).policy
        engine = Engine(launcher.topology, plain, launcher, clock, notices.append, accounting=Accounting(calendar))
        planner = Planner(engine, calendar, policy, lines.append)
        acts = [asyncio.create_task(engine.run()), asyncio.create_task(planner.run(clock))]
        try:
            for name in "xyz":
                await engine.start([guest(name)])
            await engine.kill("x")
            await engine.start([guest("wide", 2)])
            await engine.kill("y")
            assert engine.holders() == {2: "wide", 4: "z", 5: "wide"}, "it had to be content with what there was"
            assert [affinity(engine, "wide", f"CPU {n}/TCG") for n in (0, 1)] == [{0}, {0}]
            calendar.start += OPENS - calendar.local() - timedelta(seconds=1)
            await eventually(lambda: engine.holders() == {3: "wide", 4: "z", 5: "wide"})
            assert [affinity(engine, "wide", f"CPU {n}/TCG") for n in (0, 1)] == [{1}, {0}]
            assert affinity(engine, "z", "CPU 0/TCG") == {1}
            moves = [(notice.guest, notice.why) for notice in notices if notice.what is Happening.MOVES]
            assert moves == [("wide", "window 'night' has begun: to a better place")]
            assert lines == ["policy: window 'night' has begun"]
            await eventually(lambda: engine.explain("wide").state == "running")
            assert engine.explain("wide").cores == (3, 5)
            log = Path(launcher.files.directory("wide")) / "serial.log"
            beats = log.read_bytes().count(b"heartbeat")
            await eventually(lambda: log.read_bytes().count(b"heartbeat") > beats)
            await engine.stop_all()
        finally:
            for act in acts:
                act.cancel()
            await asyncio.gather(*acts, return_exceptions=True)


def test_a_guest_is_moved_into_one_node_when_a_window_opens_and_is_told_why(tmp_path: Path) -> None:
    """In a process of its own, since one process can open one root of the embedded driver."""
    assert os.sched_getaffinity(0) >= {0, 1}, "this test needs cores 0 and 1"
    told = "import asyncio; from tests.functional.test_window_moves import story; asyncio.run(story())"
    variables = {**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

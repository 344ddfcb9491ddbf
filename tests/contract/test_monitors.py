"""The Monitors port: the fake and QMP to a real, tiny QEMU agree. The guest only runs its firmware."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
from qemu.qmp import QMPClient

from orchestrator.core.inspection import parse_registers
from orchestrator.core.life import RUNS, STANDS
from orchestrator.core.model import Architecture
from orchestrator.errors import FailedError
from orchestrator.host.monitor import QmpMonitors
from orchestrator.host.processes import ProcFs
from orchestrator.ports import Monitor, Monitors, Processes, Thread, ThreadRoles
from tests.fakes.host import FakeDomain, FakeHost, Faults
from tests.fakes.monitor import FakeMonitors
from tests.fakes.processes import FakeProcesses


class Side(Protocol):
    """A guest with two vCPUs and one I/O thread that waits to be continued, and how to reach it.

    It has a disk, whose image keeps its data in a file beside it.
    """

    pid: int
    socket: str
    directory: str
    monitors: Monitors
    processes: Processes

    async def runs(self) -> bool: ...

    def kill(self) -> None: ...

    async def quit(self) -> None: ...


def fake_guest() -> FakeDomain:
    ids = {"qemu": 1000, "CPU 0/TCG": 1010, "CPU 1/TCG": 1011, "IO one": 1051}
    return FakeDomain(
        name="tiny",
        uuid="u",
        metadata=None,
        monitor="/run/monitor.sock",
        threads={
            tid: Thread(tid=tid, name=name, allowed=frozenset({2}), last_core=2, cpu_seconds=0.0)
            for name, tid in ids.items()
        },
        roles=ThreadRoles({0: 1010, 1: 1011}, {"one": 1051}),
        images={"libvirt-1-storage": "/srv/disk", "#block012": "/srv/data"},
        pid=1000,
    )


@dataclass
class FakeSide:
    host: FakeHost = field(
        default_factory=lambda: FakeHost(Faults(ignores_power_button=["tiny"]), domains={"u": fake_guest()})
    )
    socket: str = "/run/monitor.sock"
    pid: int = 1000
    directory: str = "/srv"

    def __post_init__(self) -> None:
        self.monitors: Monitors = FakeMonitors(self.host)
        self.processes: Processes = FakeProcesses(self.host)

    async def runs(self) -> bool:
        return self.host.domains["u"].state == "running"

    def kill(self) -> None:
        self.host.ends("tiny")

    async def quit(self) -> None:
        self.host.ends("tiny", "destroyed")


@dataclass
class QemuSide:
    pid: int
    socket: str
    directory: str
    monitors: Monitors = field(default_factory=QmpMonitors)
    processes: Processes = field(default_factory=ProcFs)

    async def runs(self) -> bool:
        client = QMPClient()
        await client.connect(self.socket)
        answer = cast(dict[str, object], await client.execute("query-status"))
        await client.disconnect()
        return answer["running"] is True

    def kill(self) -> None:
        handle = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [])
        os.close(handle)

    async def quit(self) -> None:
        """Have QEMU end by a signal that it obeys, as libvirt does."""
        handle = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        await asyncio.to_thread(select.select, [handle], [], [])
        os.close(handle)


def qemu(directory: Path) -> QemuSide:
    """Start QEMU; it returns once it listens, and goes on in the background."""
    socket, pid_file, image = directory / "monitor.sock", directory / "pid", directory / "disk"
    data = f"data_file={directory / 'data'}"
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", "-o", data, str(image), "1M"), check=True)
    protocol = {"driver": "file", "filename": str(image), "node-name": "libvirt-1-storage", "auto-read-only": True}
    form = {"driver": "qcow2", "file": "libvirt-1-storage", "node-name": "libvirt-1-format", "backing": None}
    command = (
        *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-smp", "2", "-m", "16", "-S"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-name", "tiny,debug-threads=on"),
        *("-object", "iothread,id=one", "-qmp", f"unix:{socket},server=on,wait=off"),
        *("-blockdev", json.dumps(protocol), "-blockdev", json.dumps(form)),
        *("-daemonize", "-pidfile", str(pid_file)),
    )
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return QemuSide(int(pid_file.read_text()), str(socket), str(directory))


@pytest.fixture(params=["fake", "qemu"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == "fake":
        yield FakeSide()
        return
    guest = qemu(tmp_path)
    yield guest
    with contextlib.suppress(ProcessLookupError):
        guest.kill()


async def told(monitor: Monitor) -> list[tuple[str, Mapping[str, Any]]]:
    return [each async for each in monitor.events()]


def test_it_tells_which_thread_is_which(side: Side) -> None:
    async def story() -> ThreadRoles:
        monitor = await side.monitors.connect(side.socket)
        try:
            return await monitor.thread_roles()
        finally:
            await monitor.close()

    roles = asyncio.run(story())
    names = {thread.tid: thread.name for thread in side.processes.threads(side.pid)}
    assert {index: names[tid] for index, tid in roles.vcpus.items()} == {0: "CPU 0/TCG", 1: "CPU 1/TCG"}
    assert {name: names[tid] for name, tid in roles.iothreads.items()} == {"one": "IO one"}
    assert side.pid not in {*roles.vcpus.values(), *roles.iothreads.values()}


def test_it_tells_which_files_are_disks_also_those_to_which_an_image_leads(side: Side) -> None:
    async def story() -> Mapping[str, str]:
        monitor = await side.monitors.connect(side.socket)
        try:
            return await monitor.images()
        finally:
            await monitor.close()

    images = asyncio.run(story())
    assert sorted(images.values()) == [f"{side.directory}/data", f"{side.directory}/disk"]
    assert images["libvirt-1-storage"] == f"{side.directory}/disk"


def test_the_human_monitor_is_asked_of_each_vcpu(side: Side) -> None:
    async def story() -> list[int]:
        monitor = await side.monitors.connect(side.socket)
        said = [await monitor.human("info registers", index) for index in (0, 1)]
        await monitor.close()
        return [len(parse_registers(each, Architecture.X86_64, 0).registers) for each in said]

    assert all(count >= 2 for count in asyncio.run(story()))


def test_a_guest_is_continued_and_the_socket_serves_the_next_one(side: Side) -> None:
    async def story() -> None:
        assert not await side.runs()
        for _ in range(2):
            monitor = await side.monitors.connect(side.socket)
            await monitor.resume()
            await monitor.resume()  # a guest that runs already goes on
            await monitor.close()
            assert await side.runs()

    asyncio.run(story())


def test_a_guest_is_stopped_and_continued_in_turns(side: Side) -> None:
    async def story() -> None:
        for runs in (True, False, False, True):
            monitor = await side.monitors.connect(side.socket)
            await (monitor.resume() if runs else monitor.suspend())  # one that stands still already stays so
            assert await monitor.status() in ([RUNS] if runs else STANDS)
            await monitor.close()
            assert await side.runs() is runs

    asyncio.run(story())


def test_the_end_of_a_guest_is_noticed_by_its_monitor(side: Side) -> None:
    async def story() -> None:
        monitor = await side.monitors.connect(side.socket)
        heard = asyncio.create_task(told(monitor))
        await asyncio.sleep(0)
        assert not heard.done()
        side.kill()
        assert await asyncio.wait_for(heard, 10) == []  # killed without a word
        await monitor.close()

    asyncio.run(story())


def test_hanging_up_ends_what_is_heard(side: Side) -> None:
    async def story() -> None:
        monitor = await side.monitors.connect(side.socket)
        heard = asyncio.create_task(told(monitor))
        await asyncio.sleep(0)
        await monitor.close()
        assert await asyncio.wait_for(heard, 10) == []

    asyncio.run(story())


def test_turns_are_no_events_and_last_words_are_heard_even_if_they_were_said_before_anybody_listened(
    side: Side,
) -> None:
    async def story() -> None:
        monitor = await side.monitors.connect(side.socket)
        await monitor.resume()
        await monitor.suspend()
        await monitor.resume()
        await side.quit()
        heard = await asyncio.wait_for(told(monitor), 10)
        assert [(name, data["guest"], data["reason"]) for name, data in heard] == [("SHUTDOWN", False, "host-signal")]
        await monitor.close()

    asyncio.run(story())


def test_the_power_button_of_a_guest_that_does_not_listen_changes_nothing(side: Side) -> None:
    async def story() -> None:
        monitor = await side.monitors.connect(side.socket)
        await monitor.resume()
        await monitor.powerdown()
        await monitor.close()
        assert await side.runs()

    asyncio.run(story())


def test_nobody_behind_a_socket_is_a_failure_that_names_it(side: Side) -> None:
    with pytest.raises(FailedError, match=r"/nowhere\.sock: cannot talk to the guest's monitor: "):
        asyncio.run(side.monitors.connect("/nowhere.sock"))


def test_a_guest_that_died_is_a_failure_and_hanging_up_is_none(side: Side) -> None:
    async def story() -> None:
        monitor = await side.monitors.connect(side.socket)
        side.kill()
        for ask in (monitor.thread_roles, monitor.resume):
            with pytest.raises(FailedError, match=rf"^{side.socket}: .* failed: "):
                await ask()
        await monitor.close()
        with pytest.raises(FailedError, match=r"cannot talk to the guest's monitor"):
            await side.monitors.connect(side.socket)

    asyncio.run(story())
    assert side.processes.threads(side.pid) == ()


def test_what_is_no_qmp_is_a_failure(tmp_path: Path) -> None:
    async def story() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_unix_server(answer, tmp_path / "mail.sock")
        async with server:
            with pytest.raises(FailedError, match=r"mail\.sock: cannot talk to the guest's monitor: "):
                await QmpMonitors().connect(str(tmp_path / "mail.sock"))

    asyncio.run(story())


def test_the_library_behind_it_prints_nothing(tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from orchestrator.errors import FailedError\n"
        "from orchestrator.host.monitor import QmpMonitors\n"
        "try:\n"
        f"    asyncio.run(QmpMonitors().connect({str(tmp_path / 'nowhere.sock')!r}))\n"
        "except FailedError:\n"
        "    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")

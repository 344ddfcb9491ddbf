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
from collections.abc import AsyncIterator, Iterator, Mapping
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
        disks={"/srv/disk": 1 << 20},
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
    async def story() -> tuple[Mapping[str, str], Mapping[str, int]]:
        monitor = await side.monitors.connect(side.socket)
        try:
            return await monitor.images(), await monitor.disks()
        finally:
            await monitor.close()

    images, disks = asyncio.run(story())
    assert disks == {f"{side.directory}/disk": 1 << 20}
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


GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)


@dataclass
class FarEnd:
    """Reads commands, which nothing need stand between, and answers what it is told to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    unread: str = ""

    async def command(self) -> dict[str, Any]:
        while True:
            with contextlib.suppress(ValueError):
                command, end = json.JSONDecoder().raw_decode(self.unread)
                self.unread = self.unread[end:].lstrip()
                return cast(dict[str, Any], command)
            self.unread += (await asyncio.wait_for(self.reader.read(4096), 10)).decode()

    def answer(self, command: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        self.writer.write(json.dumps({**body, "id": command["id"]}).encode() + b"\r\n")


@contextlib.asynccontextmanager
async def slow_qemu(path: Path) -> AsyncIterator[tuple[Monitor, FarEnd]]:
    """A monitor, and the far end of its connection, which has been negotiated and answers nothing by itself."""
    ends: asyncio.Queue[FarEnd] = asyncio.Queue()

    async def negotiate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = FarEnd(reader, writer)
        writer.write(GREETING)
        await end.command()
        writer.write(b'{"return": {}}\r\n')
        ends.put_nowait(end)

    server = await asyncio.start_unix_server(negotiate, path)
    monitor = await QmpMonitors().connect(str(path))
    end = await ends.get()
    try:
        yield monitor, end
    finally:
        await monitor.close()
        end.writer.close()
        server.close()


def test_an_answer_is_that_of_the_very_command_even_if_nobody_waits_for_the_one_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with slow_qemu(tmp_path / "slow.sock") as (monitor, qemu):
            given_up = asyncio.create_task(monitor.suspend())
            stop = await qemu.command()
            given_up.cancel()
            await asyncio.wait({given_up})
            goes_on = asyncio.create_task(monitor.resume())
            cont = await qemu.command()
            assert (stop["execute"], cont["execute"]) == ("stop", "cont")
            qemu.answer(stop, {"return": {}})
            qemu.writer.write(b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "GUEST_PANICKED"}\r\n')
            name, _ = await anext(monitor.events())
            assert (name, goes_on.done()) == ("GUEST_PANICKED", False)  # the late answer was none to this one
            qemu.answer(cont, {"return": {}})
            await asyncio.wait_for(goes_on, 10)

    asyncio.run(story())


def test_what_qemu_refuses_is_a_failure_in_its_words_and_other_commands_are_not_touched(tmp_path: Path) -> None:
    async def story() -> None:
        async with slow_qemu(tmp_path / "slow.sock") as (monitor, qemu):
            goes_on, asks = asyncio.create_task(monitor.resume()), asyncio.create_task(monitor.status())
            commands = {command["execute"]: command for command in [await qemu.command(), await qemu.command()]}
            qemu.answer(commands["cont"], {"error": {"class": "GenericError", "desc": "no such luck"}})
            with pytest.raises(FailedError, match=r"slow\.sock: 'cont' failed: no such luck$"):
                await goes_on
            qemu.answer(commands["query-status"], {"return": {"status": "running", "running": True}})
            assert await asks == "running"

    asyncio.run(story())


def test_who_waits_for_an_answer_is_told_when_qemu_hangs_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with slow_qemu(tmp_path / "slow.sock") as (monitor, qemu):
            waits = asyncio.create_task(monitor.suspend())
            await qemu.command()
            qemu.writer.close()
            for asked in (waits, monitor.resume()):
                with pytest.raises(FailedError, match=r"slow\.sock: '(stop|cont)' failed: QEMU has hung up$"):
                    await asked

    asyncio.run(story())

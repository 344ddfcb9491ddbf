"""The part of the Monitor port that saves and loads states: the fake and a real, tiny QEMU agree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from orchestrator.core.life import RUNS, STANDS
from orchestrator.errors import FailedError
from orchestrator.host.monitor import QmpMonitors
from orchestrator.monitor_ports import LOADS, Monitors, ThreadRoles
from tests.fakes.host import FakeDomain, FakeHost
from tests.fakes.monitor import FakeMonitors


class Side(Protocol):
    """A guest, another that waits for its state (its RAM is a file's, shared, where that matters), and a folder."""

    monitors: Monitors
    directory: str
    one: str
    other: str

    def is_written(self, path: str) -> bool: ...


def fake_guest(name: str, *, incoming: bool) -> FakeDomain:
    monitor = f"/run/{name}.sock"
    roles = ThreadRoles({}, {})
    return FakeDomain(
        name=name, uuid=name, metadata=None, monitor=monitor, threads={}, roles=roles, pid=1, incoming=incoming
    )


@dataclass
class FakeSide:
    host: FakeHost = field(
        default_factory=lambda: FakeHost(
            domains={
                "one": fake_guest("one", incoming=False),
                "other": fake_guest("other", incoming=True),
            }
        )
    )
    directory: str = "/states"
    one: str = "/run/one.sock"
    other: str = "/run/other.sock"

    def __post_init__(self) -> None:
        self.monitors: Monitors = FakeMonitors(self.host)

    def is_written(self, path: str) -> bool:
        return bool(self.host.disk.get(path))


@dataclass
class QemuSide:
    directory: str
    one: str
    other: str
    pids: list[int]
    monitors: Monitors = field(default_factory=QmpMonitors)

    def is_written(self, path: str) -> bool:
        return Path(path).exists() and Path(path).stat().st_size > 0


def qemu(directory: Path, name: str, *more: str) -> tuple[str, int]:
    socket, pid_file, ram = directory / f"{name}.sock", directory / f"{name}.pid", directory / f"{name}.ram"
    command = (
        *("qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-S", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-qmp", f"unix:{socket},server=on,wait=off", "-daemonize", "-pidfile", str(pid_file)),
        *(
            "-object",
            f"memory-backend-file,id=ram,size=16M,mem-path={ram},share=on",
            "-machine",
            "pc,memory-backend=ram",
        ),
        *more,
    )
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return str(socket), int(pid_file.read_text())


@pytest.fixture(params=["fake", "qemu"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == "fake":
        yield FakeSide()
        return
    one, other = qemu(tmp_path, "one"), qemu(tmp_path, "other", "-incoming", "defer")
    yield QemuSide(str(tmp_path), one[0], other[0], [one[1], other[1]])
    for _, pid in (one, other):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_it_says_which_qemu_and_which_machine_it_is(side: Side) -> None:
    async def story() -> None:
        monitor = await side.monitors.connect(side.one)
        machine = await monitor.machine()
        await monitor.close()
        assert machine.machine.startswith("pc-i440fx-")
        assert all(part.isdigit() for part in machine.qemu.split("."))

    asyncio.run(story())


@pytest.mark.parametrize("skip_shared", [True, False])
def test_a_state_is_written_and_loaded_and_both_guests_go_on(side: Side, skip_shared: bool) -> None:
    async def story() -> None:
        one, other = await side.monitors.connect(side.one), await side.monitors.connect(side.other)
        path = f"{side.directory}/state"
        assert (await one.status() == LOADS, await other.status() == LOADS) == (False, True)
        await one.resume()
        await one.suspend()
        await one.stop_saving()
        await one.save(path, skip_shared=skip_shared)
        assert side.is_written(path)
        await other.load(path, skip_shared=skip_shared)
        assert await other.status() != LOADS
        for each in (one, other):
            assert await each.status() in STANDS
            await each.resume()
            assert await each.status() == RUNS
            await each.close()

    asyncio.run(story())


def test_no_state_is_written_over_another_nor_twice_before_the_guest_has_run(side: Side) -> None:
    async def story() -> None:
        one = await side.monitors.connect(side.one)
        path = f"{side.directory}/state"
        await one.save(path, skip_shared=True)
        with pytest.raises(FailedError, match="its state has been written since it last ran"):
            await one.save(f"{side.directory}/again", skip_shared=True)
        await one.resume()
        await one.suspend()
        with pytest.raises(FailedError, match="the file of the state cannot be opened"):
            await one.save(path, skip_shared=True)
        await one.save(f"{side.directory}/again", skip_shared=True)
        await one.resume()
        assert await one.status() == RUNS
        await one.close()

    asyncio.run(story())


def test_a_guest_that_waits_for_nothing_is_given_nothing(side: Side) -> None:
    async def story() -> None:
        one = await side.monitors.connect(side.one)
        path = f"{side.directory}/state"
        await one.save(path, skip_shared=True)
        with pytest.raises(FailedError):
            await one.load(path, skip_shared=True)
        await one.close()

    asyncio.run(story())


@pytest.mark.parametrize("content", [b"", b"no state at all" * 100, None])
def test_what_is_no_state_or_cut_off_is_a_failure(tmp_path: Path, content: bytes | None) -> None:
    one, first = qemu(tmp_path, "one")
    other, second = qemu(tmp_path, "other", "-incoming", "defer")

    async def story() -> None:
        monitors, path = QmpMonitors(), tmp_path / "state"
        if content is None:
            saving = await monitors.connect(one)
            await saving.save(str(path), skip_shared=False)
            await saving.close()
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            path.write_bytes(content)
        loading = await monitors.connect(other)
        with pytest.raises(FailedError):
            await loading.load(str(path), skip_shared=False)
        await loading.close()

    try:
        asyncio.run(story())
    finally:
        for pid in (first, second):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

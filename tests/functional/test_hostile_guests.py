"""Guests that mean harm, in real QEMUs: each can be stopped, the next one has its turn, and no disk is filled.

How long a stop takes is told, and not judged: a guest that has not confirmed within the policy's `confirm` is
quarantined, which tests of the scheduler see to. On a machine with much else to do the timer storm needs that: QEMU
goes on to make up for the interrupts that it is late with, and hears nobody. Then it is frozen here as it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.errors import OutcomeUnknownError
from orchestrator.guard.guests import stands_still
from orchestrator.host.monitor import QmpMonitors
from orchestrator.host.processes import ProcFs
from orchestrator.ports import Monitor
from orchestrator.shortcut import ANSWER_LIMIT
from tests.functional.hostile import DISK, HARM, boot_sector

HERE = Path(__file__).parent
PAYLOAD = HERE.parents[1] / "domains/build/heartbeat-i386.elf"
ROUNDS = 5
MEMORY = 256 << 20
PATIENCE = 120.0  # seconds until a stop must be confirmed, on a machine with whatever else to do


@dataclass(frozen=True)
class Qemu:
    pid: int
    socket: str
    serial: Path

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def used(self) -> float:
        return sum(thread.cpu_seconds for thread in ProcFs().threads(self.pid))


def qemu(directory: Path, *arguments: str) -> Qemu:
    """Start QEMU with its vCPU stopped, and a serial port as guests have it: a socket, and a file that keeps it all."""
    socket, serial, pid_file = directory / "monitor.sock", directory / "serial.log", directory / "pid"
    command = (
        *("qemu-system-i386", "-machine", "pc", "-accel", "tcg", "-m", "32", "-S", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-qmp", f"unix:{socket},server=on,wait=off", "-name", "hostile,debug-threads=on"),
        *(
            "-chardev",
            f"socket,id=s,path={directory / 's'},server=on,wait=off,logfile={serial}",
            "-serial",
            "chardev:s",
        ),
        *("-daemonize", "-pidfile", str(pid_file), *arguments),
    )
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Qemu(int(pid_file.read_text()), str(socket), serial)


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qemu]:
    running = qemu(tmp_path_factory.mktemp("neighbour"), "-kernel", str(PAYLOAD))
    yield running
    running.kill()


async def turns(hostile: Qemu, neighbour: Qemu) -> list[float]:
    """Let both take turns; return how long the hostile one took to stop, each time that it had run for a while."""
    bad, good = await QmpMonitors().connect(hostile.socket), await QmpMonitors().connect(neighbour.socket)
    took = []
    try:
        for _ in range(ROUNDS):
            before = hostile.used()
            await bad.resume()
            await works(hostile, before)
            began = time.monotonic()
            confirmed = await stopped(bad, hostile)
            took.append(time.monotonic() - began)
            await has_a_turn(good, neighbour)
            if not confirmed:
                assert stands_still(hostile.pid)
                return took
        with contextlib.suppress(TimeoutError):
            told = await asyncio.wait_for(anext(aiter(bad.events())), 0.1)
            assert told[0] == "RESET", "nobody has to hear of anything else"
        assert ProcFs().memory(hostile.pid) < MEMORY, "what it has to tell piles up in its QEMU"
        before = hostile.used()
        await asyncio.sleep(0.2)
        assert hostile.used() - before < 0.1, "it runs on though it is stopped"
    finally:
        await bad.close()
        await good.close()
    return took


async def stopped(bad: Monitor, hostile: Qemu) -> bool:
    """Stop it, and freeze it if it does not confirm; return whether it has."""
    try:
        await asyncio.wait_for(bad.suspend(), PATIENCE)
    except OutcomeUnknownError:
        os.kill(hostile.pid, signal.SIGSTOP)
        return False
    return True


async def works(hostile: Qemu, before: float) -> None:
    """Wait until it has done its work for some tenths of a second, as the kernel counts them."""
    until = time.monotonic() + PATIENCE
    while hostile.used() - before < 0.3:
        assert time.monotonic() < until, "it does nothing"
        await asyncio.sleep(0.05)


async def has_a_turn(monitor: Monitor, neighbour: Qemu) -> None:
    """Let the neighbour run until it has said something more."""
    said = neighbour.serial.stat().st_size
    await monitor.resume()
    until = time.monotonic() + PATIENCE
    while neighbour.serial.stat().st_size == said:
        assert time.monotonic() < until, "the next guest has no turn"
        await asyncio.sleep(0.02)
    await monitor.suspend()


@pytest.mark.parametrize("harm", HARM)
def test_it_can_be_stopped_and_the_next_has_its_turn(
    harm: str, neighbour: Qemu, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = boot_sector(harm, tmp_path)
    panics = ("-device", "pvpanic") if harm == "EVENTS" else ()
    hostile = qemu(tmp_path, "-drive", f"file={disk},format=raw,if=ide", *panics)
    try:
        took = asyncio.run(turns(hostile, neighbour))
    finally:
        hostile.kill()
    assert len(took) == ROUNDS or max(took) >= ANSWER_LIMIT
    status = disk.stat()
    assert status.st_size == DISK
    assert status.st_blocks * 512 <= DISK + (64 << 10), "beyond its disk"
    if harm == "FILL":
        assert status.st_blocks * 512 > 64 << 10, "it has written nothing"
    if harm == "FLOOD":
        assert b"x" * 1000 in hostile.serial.read_bytes()
    with capsys.disabled():
        sys.stdout.write(f"\n{harm}: stopped after at most {max(took) * 1000:.1f} ms\n")

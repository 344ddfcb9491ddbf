"""A look inside real guests of all four architectures: what gdb sees, what objdump says of the source, and no more."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.inspection import Look, Mode
from orchestrator.core.model import Architecture
from orchestrator.host.disassembly import disassemble
from orchestrator.host.monitor import QmpMonitor, QmpMonitors
from orchestrator.inside import look_inside, serve_debugger
from orchestrator.payloads.store import PayloadStore
from tests.functional.mapped_guests import DOMAINS, Running, definition, running, wait_until

BUILD = DOMAINS / "build"
SOURCE = {
    Architecture.I386: ("objdump -M intel", "heartbeat-i386.elf"),
    Architecture.X86_64: ("objdump -M intel", "heartbeat-x86_64.elf.64"),
    Architecture.AARCH64: ("aarch64-linux-gnu-objdump", "heartbeat-aarch64.elf"),
    Architecture.ARMV7L: ("arm-linux-gnueabi-objdump", "heartbeat-armv7l.elf"),
}
MODES = {
    Architecture.I386: Mode.X86_32,
    Architecture.X86_64: Mode.X86_64,
    Architecture.AARCH64: Mode.AARCH64,
    Architecture.ARMV7L: Mode.ARM,
}
GDB = {"i386": "i386", "x86_64": "i386:x86-64", "armv7l": "armv7", "aarch64": "aarch64"}

each_architecture = pytest.mark.parametrize("architecture", Architecture)


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run(["make", "--silent", "-C", DOMAINS, "heartbeats"], check=True, timeout=600)


@pytest.fixture
def guest(architecture: Architecture, tmp_path: Path) -> Iterator[Running]:
    with running([(definition(f"heartbeat-{architecture}"), None)], tmp_path) as guests:
        wait_until(lambda: len(guests[0].lines) > 1, guests)
        yield guests[0]


def seen_by_gdb(architecture: Architecture, socket: str) -> dict[str, int]:
    """Return the registers that gdb has, by its names."""
    commands = [f"set architecture {GDB[architecture]}", f"target remote {socket}", "info registers"]
    command = ["gdb-multiarch", "-nx", "-batch", *(part for each in commands for part in ("-ex", each))]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.findall(r"^([a-z][a-z0-9_]*)\s+(0x[0-9a-f]+)", said, re.MULTILINE)
    return {name: int(value, 16) for name, value in found}


@each_architecture
def test_gdb_sees_the_same_registers(architecture: Architecture, guest: Running) -> None:
    if shutil.which("gdb-multiarch") is None:
        pytest.fail("gdb-multiarch is missing; `make packages` installs it")
    socket = str(guest.directory / "gdb.sock")

    async def story() -> tuple[dict[str, int], dict[str, int]]:
        monitor = await QmpMonitors().connect(guest.monitor)
        await monitor.suspend()
        seen = await look_inside(monitor, architecture, [0], Look())
        assert not seen.ran
        await serve_debugger(monitor, socket, close=False)
        by_gdb = await asyncio.to_thread(seen_by_gdb, architecture, socket)
        await serve_debugger(monitor, socket, close=True)
        await monitor.close()
        return dict(seen.vcpus[0].registers), by_gdb

    ours, theirs = asyncio.run(story())
    common = ours.keys() & theirs.keys()
    assert {name: hex(ours[name]) for name in common} == {name: hex(theirs[name]) for name in common}
    needed = {Architecture.I386: 15, Architecture.X86_64: 23, Architecture.ARMV7L: 17, Architecture.AARCH64: 34}
    assert len(common) >= needed[architecture], sorted(theirs)


def listed(architecture: Architecture) -> dict[int, tuple[bytes, str]]:
    """Return what objdump says of the source: the bytes and the mnemonic at each address."""
    program, file = SOURCE[architecture]
    said = subprocess.run([*program.split(), "-d", BUILD / file], check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(\S+)", said, re.MULTILINE)
    arm = architecture in (Architecture.ARMV7L, Architecture.AARCH64)  # printed as words, not as bytes
    return {
        int(address, 16): (bytes.fromhex(code)[::-1] if arm else bytes.fromhex(code), name)
        for address, code, name in lines
    }


@each_architecture
def test_a_disassembly_is_that_of_the_source_and_the_guest_goes_on(architecture: Architecture, guest: Running) -> None:
    async def story() -> tuple[bytes, int, bytes, Mode, QmpMonitor]:
        monitor = await QmpMonitors().connect(guest.monitor)
        start = min(listed(architecture))
        seen = await look_inside(monitor, architecture, [0], Look(instructions=4, address=start, length=64))
        assert seen.ran
        assert await monitor.status() == "running"
        await monitor.close()
        return seen.code, seen.vcpus[0].pc, seen.memory, seen.vcpus[0].mode, monitor

    code, pc, memory, mode, _ = asyncio.run(story())
    assert mode is MODES[architecture]
    source = listed(architecture)
    instructions = disassemble(code, pc, mode, 4)
    assert len(instructions) == 4
    for each in instructions:
        code_there, mnemonic = source[each.address]
        assert each.bytes == code_there[: len(each.bytes)]
        assert each.text.split()[0] == mnemonic
    first = min(source)
    assert memory.startswith(source[first][0])
    before = len(guest.lines)
    wait_until(lambda: len(guest.lines) > before + 1, [guest])


@pytest.mark.parametrize("architecture", [Architecture.AARCH64])
def test_where_there_is_no_memory_less_is_seen(architecture: Architecture, guest: Running) -> None:
    async def story() -> bytes:
        monitor = await QmpMonitors().connect(guest.monitor)
        end = 0x40000000 + (64 << 20)
        seen = await look_inside(monitor, architecture, [0], Look(address=end - 16, length=8192))
        await monitor.close()
        return seen.memory

    assert asyncio.run(story()) == bytes(16)


@pytest.mark.parametrize("architecture", [Architecture.I386, Architecture.X86_64])
def test_memory_in_the_upper_half_of_what_32_bits_can_say_is_seen_too(
    architecture: Architecture, tmp_path: Path
) -> None:
    subprocess.run(["make", "--silent", "-C", DOMAINS, "payload"], check=True, timeout=600)
    image, store = BUILD / "payload.img", PayloadStore(tmp_path / "store")
    with image.open("rb") as source:
        payload = store.add(source.fileno(), "toolbox", "alice", public=True, quota=1 << 30)
    wanted = [(definition(f"payload/window-{architecture}"), store.check(payload).mapped)]
    with running(wanted, tmp_path) as (guest,):
        wait_until(lambda: len(guest.counters()) > 0, [guest])
        base = int(guest.value("payload at"), 16)
        assert base >= 1 << 31

        async def story() -> tuple[int, bytes, bytes]:
            monitor = await QmpMonitors().connect(guest.monitor)
            seen = await look_inside(monitor, architecture, [0], Look(instructions=1, address=base + 4090, length=5000))
            await monitor.close()
            return seen.vcpus[0].pc, seen.code, seen.memory

        pc, code, memory = asyncio.run(story())
    content = image.read_bytes()
    assert memory == content[4090 : 4090 + 5000]
    assert code == content[pc - base : pc - base + len(code)]
    assert code

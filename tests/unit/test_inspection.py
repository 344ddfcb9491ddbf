"""What QEMU's monitor says of registers and memory, for all architectures; who may look, and how guests fare."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.inspection import (
    REGISTERS,
    Look,
    Mode,
    is_out_of_reach,
    memory_command,
    parse_memory,
    parse_physical,
    parse_registers,
    physical_command,
)
from orchestrator.core.model import Architecture
from orchestrator.core.placement import Placement, place
from orchestrator.errors import FailedError, RefusedError, UsageError
from orchestrator.host.disassembly import disassemble
from orchestrator.service.inspection import InspectRequest
from orchestrator.service.messages import ForbiddenError
from tests.fakes.engine import guest, launcher_on
from tests.fakes.host import FakeDomain, FakeHost
from tests.unit.service_daemon import ALICE, BOB, daemon_on, definition, run

I386 = """
CPU#0
EAX=00000030 EBX=0000001b ECX=000007be EDX=000003f8
ESI=844fff2b EDI=001000ac EBP=00000002 ESP=001001c0
EIP=00000036 EFL=00000006 [-----P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0010 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
CS =0008 00100000 ffffffff 00cf9a00 DPL=0 CS32 [-R-]
SS =0010 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
GDT=     000c02b8 00000027
CR0=00000011 CR2=00000000 CR3=00000000 CR4=00000000
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
"""
REAL_MODE = I386.replace("CS32", "CS16")
X86_64 = """
CPU#1
RAX=0000000000000030 RBX=0000000000000016 RCX=000000000000254a RDX=00000000000003f8
R8 =0000000000000008 R9 =0000000000000000 R10=0000000000000010 R11=0000000000000000
RIP=ffffffff8010006f RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 0000000000000000 00000000 00209a00 DPL=0 CS64 [-R-]
"""
AARCH64 = """
CPU#0
 PC=0000000040080038 X00=0000000000000ad9 X01=00000000003572d8
X29=0000000000000000 X30=0000000040080034  SP=0000000000000010
PSTATE=200003c5 --C- EL1h    FPU disabled
"""
ARM = """
CPU#0
R00=00002264 R01=003d19c5 R12=00000032 R13=00000010 R14=40080034 R15=40080038
PSR=200001d3 --C- A svc32
"""


@pytest.mark.parametrize(
    ("text", "architecture", "mode", "pc", "some"),
    [
        (I386, Architecture.I386, Mode.X86_32, 0x100036, {"eax": 0x30, "eip": 0x36, "eflags": 6, "cs": 8, "cr0": 0x11}),
        (REAL_MODE, Architecture.X86_64, Mode.X86_16, 0x100036, {"esi": 0x844FFF2B, "ss": 0x10}),
        (X86_64, Architecture.X86_64, Mode.X86_64, 0xFFFFFFFF8010006F, {"r8": 8, "r10": 16, "eflags": 2}),
        (AARCH64, Architecture.AARCH64, Mode.AARCH64, 0x40080038, {"x0": 0xAD9, "sp": 16, "cpsr": 0x200003C5}),
        (ARM, Architecture.ARMV7L, Mode.ARM, 0x40080038, {"r0": 0x2264, "sp": 16, "lr": 0x40080034}),
        (ARM.replace("1d3", "1f3"), Architecture.ARMV7L, Mode.THUMB, 0x40080038, {"pc": 0x40080038}),
        (ARM, Architecture.AARCH64, Mode.ARM, 0x40080038, {"r12": 0x32}),
    ],
)
def test_registers_have_gdbs_names(
    text: str, architecture: Architecture, mode: Mode, pc: int, some: dict[str, int]
) -> None:
    seen = parse_registers(text, architecture, 1)
    assert (seen.mode, seen.pc, seen.index) == (mode, pc, 1)
    assert {name: seen.registers.get(name) for name in some} == some


def test_an_answer_that_is_none_is_a_failure() -> None:
    with pytest.raises(FailedError, match="in a way that is not known for aarch64"):
        parse_registers("unknown command", Architecture.AARCH64, 0)


def test_memory_is_read_up_to_where_there_is_none() -> None:
    text = "0000000000100000: 0xbc 0x00\n0000000000100002: 0x51\n0000000000100003: Cannot access memory\n"
    assert parse_memory(text) == b"\xbc\x00\x51"
    assert parse_memory("Cannot access memory") == b""


@pytest.mark.parametrize(
    "look", [{"instructions": -1}, {"instructions": 1001}, {"length": 65537}, {"address": -1}, {"address": 2**64}]
)
def test_too_much_is_not_looked_at(look: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"not possible|is no address"):
        Look(**look)


def test_disassembly_ends_where_no_instruction_is() -> None:
    found = disassemble(bytes.fromhex("f4c3ffff"), 0x1000, Mode.X86_64, 10)
    assert [(each.address, each.text) for each in found] == [(0x1000, "hlt"), (0x1001, "ret")]


def domain(host: FakeHost, name: str) -> FakeDomain:
    return next(each for each in host.domains.values() if each.name == name)


def answer(host: FakeHost, name: str) -> None:
    answers = domain(host, name).answers
    answers[REGISTERS] = X86_64
    answers[memory_command(0x1000, 2)] = "0000000000001000: 0x01 0x02"


def test_a_guest_that_runs_is_stopped_for_it_and_goes_on_whatever_happens(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition())
            for there in (True, False):
                if there:
                    answer(daemon.host, "web")
                else:
                    domain(daemon.host, "web").answers[REGISTERS] = "unknown command"
                before = len(daemon.host.trace)
                try:
                    seen = await daemon.client.inspect("web", InspectRequest(address=0x1000, length=2))
                    assert (seen["ran"], seen["memory"], there) == (True, {"address": "0x1000", "bytes": "0102"}, True)
                except FailedError:
                    assert not there
                acts = [line for line in daemon.host.trace[before:] if line in ("stop web", "continue web")]
                assert acts == ["stop web", "continue web"]
                assert (await daemon.shown())["web"] == "running"

    run(story)


def test_a_guest_that_is_paused_stays_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition())
            await daemon.client.act("pause", "web")
            answer(daemon.host, "web")
            before = len(daemon.host.trace)
            assert not (await daemon.client.inspect("web", InspectRequest()))["ran"]
            assert not {"stop web", "continue web"} & set(daemon.host.trace[before:])

    run(story)


class NoLock:
    """What would be if a hand-over did not wait."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("waits", [True, False])
def test_a_hand_over_waits_for_a_look_so_that_it_lets_nobody_run_who_has_no_turn(waits: bool) -> None:
    async def story() -> str:
        host = FakeHost()
        topology = discover({"cpu/online": "0-3"}, ())
        launcher, wanted = launcher_on(host, topology), guest()
        outcome = place(wanted.spec, topology.pool.cores, topology)
        assert isinstance(outcome, Placement)
        one = await launcher.launch(wanted.placed(outcome, launcher.files.directory("beat")))
        if not waits:
            one.still = NoLock()  # type: ignore[assignment]  # the flaw that this test is to find
        answer(host, "beat")
        await launcher.resume(one, outcome)
        await asyncio.gather(launcher.inspect(one, Look()), launcher.suspend(one))
        return domain(host, "beat").state

    assert asyncio.run(story()) == ("paused" if waits else "running")


def test_nobody_looks_into_anothers_guest_and_debuggers_need_an_exclusive_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition(), definition("turns", "shared"))
            with pytest.raises(ForbiddenError, match="a gdb server's socket is only for root"):
                await daemon.client.debug("web", close=False)
            daemon.caller = BOB
            for ask in (daemon.client.inspect("web", InspectRequest()), daemon.client.debug("web", close=False)):
                with pytest.raises(ForbiddenError, match="this guest is another user's"):
                    await ask

    run(story)


def test_a_debugger_is_opened_for_an_exclusive_guest_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition(), definition("turns", "shared"))
            opened = await daemon.client.debug("web", close=False)
            assert opened == {"socket": "/run/orchestrator/guests/web/gdb.sock", "architecture": "x86_64"}
            said = "say 'gdbserver unix:/run/orchestrator/guests/web/gdb.sock,server=on,wait=off' to vCPU 0 of web"
            assert said in daemon.host.trace
            with pytest.raises(RefusedError, match="only a guest with mode = 'exclusive' can be debugged"):
                await daemon.client.debug("turns", close=False)

    run(story)


def test_addresses_that_qemu_takes_for_negative_numbers_are_translated_first() -> None:
    assert is_out_of_reach(0x80000000, Architecture.I386)
    assert is_out_of_reach(0xF8000000, Architecture.ARMV7L)
    assert not is_out_of_reach(0x7FFFFFFF, Architecture.I386)
    assert not is_out_of_reach(0xF8000000, Architecture.X86_64)
    assert physical_command(0xF8000000) == "gva2gpa 0xf8000000"
    assert parse_physical("gpa: 0xf8000000\r\n") == 0xF8000000
    assert parse_physical("Unmapped\r\n") is None
    assert memory_command(0xF8000000, 16, physical=True) == "xp /16xb 0xf8000000"

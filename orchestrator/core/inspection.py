"""A look inside a guest: what is asked of QEMU's human monitor, and what its answers mean, for all architectures alike.

Registers have gdb's names. Everything is O(length of the answers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.model import Architecture
from orchestrator.errors import FailedError, UsageError

MOST_BYTES = 65536
"""The most memory that is shown at once."""

MOST_INSTRUCTIONS = 1000
PIECE = 4096  # bytes of memory in one answer

_LONGEST = 15  # bytes of an instruction, on x86; others have 4 at most


class Mode(StrEnum):
    """As what a processor reads instructions now."""

    X86_16 = "x86-16"
    X86_32 = "x86-32"
    X86_64 = "x86-64"
    ARM = "arm"
    THUMB = "thumb"
    AARCH64 = "aarch64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is wanted: registers always, so many instructions from the program counter on, `length` bytes at `address`.

    Addresses are as the guest's code has them, by the first vCPU's page tables.
    """

    instructions: int = 0
    address: int = 0
    length: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.instructions <= MOST_INSTRUCTIONS:
            raise UsageError(f"{self.instructions} instructions are not possible; it is 0 to {MOST_INSTRUCTIONS}")
        if not 0 <= self.length <= MOST_BYTES:
            raise UsageError(f"{self.length} bytes are not possible; it is 0 to {MOST_BYTES} at once")
        if not 0 <= self.address < 2**64:
            raise UsageError(f"{self.address:#x} is no address; it has 64 bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vcpu:
    """One vCPU: `pc` is where its next instruction is in memory, which on x86 may differ from rip by cs's base."""

    index: int
    pc: int
    mode: Mode
    registers: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was seen at one moment: `code` is at the first vCPU's `pc`, `memory` where it was wanted.

    `ran` tells whether the guest had to be stopped for it; it runs again then.
    """

    ran: bool
    vcpus: tuple[Vcpu, ...]
    code: bytes = b""
    memory: bytes = b""


REGISTERS = "info registers"


def memory_command(address: int, length: int, *, physical: bool = False) -> str:
    """Return what prints so many bytes, at most `PIECE`, at an address of the guest's code, or of the machine."""
    return f"{'xp' if physical else 'x'} /{length}xb {address:#x}"


def is_out_of_reach(address: int, architecture: Architecture) -> bool:
    """Say whether QEMU takes an address of the guest's code for a negative number, and finds nothing there.

    It does (7.2, hmp_memory_dump) with the upper half of what 32 bits can say.
    """
    return architecture in (Architecture.I386, Architecture.ARMV7L) and address >= 1 << 31


def physical_command(address: int) -> str:
    """Return what translates an address of the guest's code."""
    return f"gva2gpa {address:#x}"


def parse_physical(text: str) -> int | None:
    """Return the machine's address in an answer; None if the guest has nothing there."""
    found = re.match(r"gpa: 0x([0-9a-f]+)", text)
    return None if found is None else int(found[1], 16)


def code_bytes(instructions: int, mode: Mode) -> int:
    """Return how many bytes so many instructions have at most."""
    return instructions * (_LONGEST if mode in (Mode.X86_16, Mode.X86_32, Mode.X86_64) else 4)


def parse_memory(text: str) -> bytes:
    """Return the bytes in an answer, up to the first that cannot be read."""
    found = bytearray()
    for line in text.splitlines():
        _, colon, rest = line.partition(": ")
        if not colon or not rest.startswith("0x"):
            break
        found += bytes(int(word, 16) for word in rest.split())
    return bytes(found)


_X86 = re.compile(
    r"\b(E?[A-D]X|R[A-D]X|[ER]?[SD]I|[ER][BS]P|R(?:[89]|1[0-5])|[ER]IP|[ER]FL|CR[0-4]) *=([0-9a-f]{8,16})\b"
)
_SEGMENT = re.compile(r"^([C-G]S|SS) *=([0-9a-f]{4}) ([0-9a-f]+) [0-9a-f]+ [0-9a-f]+(.*)$", re.MULTILINE)
_ARM = re.compile(r"\bR(\d\d)=([0-9a-f]{8})\b")
_PSR = re.compile(r"^PSR=([0-9a-f]{8})\b", re.MULTILINE)
_AARCH64 = re.compile(r"\b(PC|SP|X\d\d)=([0-9a-f]{16})\b")
_PSTATE = re.compile(r"^PSTATE=([0-9a-f]{8})\b", re.MULTILINE)

_ARM_NAMES = {13: "sp", 14: "lr", 15: "pc"}
_THUMB = 1 << 5  # of the status register


def parse_registers(text: str, architecture: Architecture, index: int) -> Vcpu:
    """Read the answer to `REGISTERS` for one vCPU. FailedError if it is none that we know."""
    found = _parse_x86(text, index) if "CPL=" in text else _parse_arm(text, index)
    if found is None:
        raise FailedError(f"vCPU {index}: QEMU tells its registers in a way that is not known for {architecture}")
    return found


def _parse_x86(text: str, index: int) -> Vcpu | None:
    registers = {name.lower(): int(value, 16) for name, value in _X86.findall(text)}
    for short in ("efl", "rfl"):
        if short in registers:
            registers["eflags"] = registers.pop(short)
    segments = {
        name.lower(): (int(selector, 16), int(base, 16), rest) for name, selector, base, rest in _SEGMENT.findall(text)
    }
    pc = registers.get("rip", registers.get("eip"))
    if pc is None or "cs" not in segments:
        return None
    registers |= {name: selector for name, (selector, _, _) in segments.items()}
    _, base, rest = segments["cs"]
    mode = Mode.X86_64 if "CS64" in rest else Mode.X86_32 if "CS32" in rest else Mode.X86_16
    return Vcpu(index=index, pc=(base + pc) % 2**64, mode=mode, registers=registers)


def _parse_arm(text: str, index: int) -> Vcpu | None:
    wide, status = {name.lower(): int(value, 16) for name, value in _AARCH64.findall(text)}, _PSTATE.search(text)
    if status is not None and "pc" in wide:
        registers = {(f"x{int(name[1:])}" if name[0] == "x" else name): value for name, value in wide.items()}
        registers["cpsr"] = int(status[1], 16)
        return Vcpu(index=index, pc=registers["pc"], mode=Mode.AARCH64, registers=registers)
    narrow, status = {int(number): int(value, 16) for number, value in _ARM.findall(text)}, _PSR.search(text)
    if status is None or 15 not in narrow:
        return None
    registers = {_ARM_NAMES.get(number, f"r{number}"): value for number, value in narrow.items()}
    registers["cpsr"] = int(status[1], 16)
    mode = Mode.THUMB if registers["cpsr"] & _THUMB else Mode.ARM
    return Vcpu(index=index, pc=registers["pc"], mode=mode, registers=registers)

"""What travels of a look inside a guest. Numbers of 64 bits are in hex: JSON's readers round them."""

from __future__ import annotations

import msgspec

from orchestrator.core.inspection import Inspection, Look


class InspectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many instructions from the program counter on, and `length` bytes at `address`."""

    instructions: int = 0
    address: int = 0
    length: int = 0


class DebugRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Open a gdb server, or close it."""

    close: bool = False


class VcpuView(msgspec.Struct, frozen=True):
    """One vCPU: where its next instruction is, as what it is read, and its registers by gdb's names."""

    index: int
    pc: str
    mode: str
    registers: dict[str, str]


class MemoryView(msgspec.Struct, frozen=True):
    """Memory: its address and its bytes, both in hex; fewer than wanted where there is no more."""

    address: str
    bytes: str


class InspectionView(msgspec.Struct, frozen=True):
    """What was seen; `ran` if the guest had to be stopped, and runs again. `code` is at the first vCPU's pc."""

    ran: bool
    vcpus: tuple[VcpuView, ...]
    code: MemoryView
    memory: MemoryView


class DebuggerView(msgspec.Struct, frozen=True):
    """Where a gdb server listens, and for which architecture."""

    socket: str
    architecture: str


def view_inspection(seen: Inspection, look: Look) -> InspectionView:
    """Show what was seen."""
    vcpus = tuple(
        VcpuView(each.index, hex(each.pc), each.mode, {name: hex(value) for name, value in each.registers.items()})
        for each in seen.vcpus
    )
    return InspectionView(
        seen.ran,
        vcpus,
        MemoryView(vcpus[0].pc, seen.code.hex()),
        MemoryView(hex(look.address), seen.memory.hex()),
    )

"""Instructions from bytes, by capstone, which is not installed with the rest."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.inspection import Mode
from orchestrator.errors import HostError

try:
    import capstone
except ImportError:
    capstone = None


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its address, its bytes, and its text, of which the first word is the mnemonic."""

    address: int
    bytes: bytes
    text: str


def disassemble(code: bytes, address: int, mode: Mode, most: int) -> list[Instruction]:
    """Return at most so many instructions, up to the first bytes that are none. HostError without capstone."""
    if capstone is None:
        raise HostError("capstone, which disassembles, is not installed: `pip install 'orchestrator[inspect]'` does so")
    kinds = {
        Mode.X86_16: (capstone.CS_ARCH_X86, capstone.CS_MODE_16),
        Mode.X86_32: (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
        Mode.X86_64: (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        Mode.ARM: (capstone.CS_ARCH_ARM, capstone.CS_MODE_ARM),
        Mode.THUMB: (capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB),
        Mode.AARCH64: (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
    }
    reader = capstone.Cs(*kinds[mode])
    found = reader.disasm(code, address, most)
    return [Instruction(each.address, bytes(each.bytes), f"{each.mnemonic} {each.op_str}".strip()) for each in found]

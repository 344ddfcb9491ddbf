"""A look inside a guest by its monitor. It has to be still for it: else registers are those of some moment before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.inspection import (
    PIECE,
    REGISTERS,
    Inspection,
    Look,
    code_bytes,
    is_out_of_reach,
    memory_command,
    parse_memory,
    parse_physical,
    parse_registers,
    physical_command,
)
from orchestrator.core.model import Architecture, Mode
from orchestrator.core.xml.domain import Domain
from orchestrator.errors import FailedError, RefusedError
from orchestrator.monitor_ports import Monitor


class Debugged(Protocol):
    """What has to be known of a guest to debug it."""

    domain: Domain
    monitor: Monitor


LIMIT = 1.0
"""Seconds that a guest may be still for it; a hand-over that has to wait for it must come within its own limit."""


async def look_inside(monitor: Monitor, architecture: Architecture, vcpus: Sequence[int], look: Look) -> Inspection:
    """Stop a guest if it runs, look, and let it go on, whatever happens. The caller sees to it that nobody else does.

    FailedError if QEMU does not answer in time.
    """
    ran = await monitor.status() == "running"
    if ran:
        await monitor.suspend()
    try:
        async with asyncio.timeout(LIMIT):
            return await _look(monitor, architecture, vcpus, look, ran=ran)
    except TimeoutError:
        raise FailedError(f"the guest was still for {LIMIT:g} s and not all was seen; ask for less at once") from None
    finally:
        if ran:
            await asyncio.shield(monitor.resume())


async def _look(
    monitor: Monitor, architecture: Architecture, vcpus: Sequence[int], look: Look, *, ran: bool
) -> Inspection:
    seen = [parse_registers(await monitor.human(REGISTERS, index), architecture, index) for index in sorted(vcpus)]
    first = seen[0]
    memory = _Memory(monitor, architecture, first.index)
    code = await memory.read(first.pc, code_bytes(look.instructions, first.mode))
    found = await memory.read(look.address, look.length)
    return Inspection(ran=ran, vcpus=tuple(seen), code=code, memory=found)


@dataclass(frozen=True, slots=True)
class _Memory:
    """A guest's memory, by the page tables of this vCPU."""

    monitor: Monitor
    architecture: Architecture
    index: int

    async def read(self, address: int, length: int) -> bytes:
        """Read memory, page by page, up to where there is none."""
        found = b""
        while len(found) < length:
            at = address + len(found)
            wanted = min(PIECE - at % PIECE, length - len(found))
            piece = await self._piece(at, wanted)
            found += piece
            if len(piece) < wanted:
                break
        return found

    async def _piece(self, at: int, wanted: int) -> bytes:
        if not is_out_of_reach(at, self.architecture):
            return parse_memory(await self.monitor.human(memory_command(at, wanted), self.index))
        physical = parse_physical(await self.monitor.human(physical_command(at), self.index))
        if physical is None:
            return b""
        return parse_memory(await self.monitor.human(memory_command(physical, wanted, physical=True), self.index))


async def open_debugger(guest: Debugged, *, close: bool) -> str:
    """Have QEMU listen for gdb beside the guest's other sockets, or no more; return the socket's path.

    A debugger lets a guest run when it likes, so the guest must be an exclusive one: whose turn it is, is else the
    scheduler's word. RefusedError for others; FailedError says what QEMU says if it does not.
    """
    if guest.domain.spec.mode is not Mode.EXCLUSIVE:
        raise RefusedError(
            f"{guest.domain.spec.name}: a debugger could let it run when others have its cores; "
            "only a guest with mode = 'exclusive' can be debugged, `orchestrator inspect` looks into any"
        )
    path = f"{guest.domain.directory}/gdb.sock"
    await serve_debugger(guest.monitor, path, close=close)
    return path


async def serve_debugger(monitor: Monitor, path: str, *, close: bool) -> None:
    """Have QEMU listen for gdb at this path, or no more. FailedError says what it says if it does not."""
    device = "none" if close else f"unix:{path},server=on,wait=off"
    said = (await monitor.human(f"gdbserver {device}", 0)).strip()
    if said and not said.startswith(("Waiting for gdb connection", "Disabled gdbserver")):
        raise FailedError(f"{path}: QEMU opens no gdb server there: {said}")

"""A look inside a guest by its monitor. It has to be still for it: else registers are those of some moment before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.inspection import (
    PIECE,
    REGISTERS,
    Inspection,
    Look,
    code_bytes,
    memory_command,
    parse_memory,
    parse_registers,
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
    code = await _read(monitor, first.pc, code_bytes(look.instructions, first.mode), first.index)
    memory = await _read(monitor, look.address, look.length, first.index)
    return Inspection(ran=ran, vcpus=tuple(seen), code=code, memory=memory)


async def _read(monitor: Monitor, address: int, length: int, index: int) -> bytes:
    """Read memory, up to where there is none."""
    found = b""
    while len(found) < length:
        wanted = min(PIECE, length - len(found))
        piece = parse_memory(await monitor.human(memory_command(address + len(found), wanted), index))
        found += piece
        if len(piece) < wanted:
            break
    return found


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

"""Looks inside guests, as the command line asks for them: through the daemon, or where nobody runs a guest any more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import RefusedError, UsageError
from orchestrator.wiring.site import embedded_root

if TYPE_CHECKING:
    from orchestrator.service.inspection import InspectRequest

_GDB = {"i386": "i386", "x86_64": "i386:x86-64", "armv7l": "armv7", "aarch64": "aarch64"}
"""What gdb calls each architecture."""


async def inspect(daemon: Path | None, name: str, *, instructions: int, address: int, length: int) -> Any:
    """Look inside a guest; return what was seen as in JSON, with instructions under ``disassembly``."""
    import msgspec

    from orchestrator.service.inspection import InspectRequest

    request = InspectRequest(instructions, address, length)
    if daemon is not None:
        from orchestrator.service.client import Client

        async with Client(daemon) as client:
            seen = await client.inspect(name, request)
    else:
        seen = msgspec.json.decode(msgspec.json.encode(await _inspect_here(name, request)))
    return {**seen, "disassembly": _disassembled(seen, instructions)}


async def debug(daemon: Path, name: str, *, close: bool) -> Any:
    """Have a gdb server opened; return its socket and the command that reaches it."""
    from orchestrator.service.client import Client

    async with Client(daemon) as client:
        opened = await client.debug(name, close=close)
    architecture = _GDB[opened["architecture"]]
    command = f"gdb-multiarch -ex 'set architecture {architecture}' -ex 'target remote {opened['socket']}'"
    return {**opened, "command": command}


async def _inspect_here(name: str, request: InspectRequest) -> object:
    """Look inside a guest that no scheduler runs. Its monitor takes one caller, and a second would wait for ever."""
    from orchestrator.config import decode_guest
    from orchestrator.core.inspection import Look
    from orchestrator.host.embed import holder
    from orchestrator.host.monitor import QmpMonitors
    from orchestrator.inside import look_inside
    from orchestrator.service.inspection import view_inspection
    from orchestrator.wiring.guests import EMBED, live_domains

    busy = await asyncio.to_thread(holder, embedded_root())
    if busy is not None:
        raise RefusedError(
            f"{name}: process {busy} runs the guests here, and alone can look into them; "
            "`orchestrator serve` and `orchestrator start` run them so that you can"
        )
    found = next((each for each in await live_domains(EMBED) if each.name == name and each.pid is not None), None)
    if found is None:
        raise UsageError(f"{name}: there is no such guest; `orchestrator ps` lists those that are")
    look = Look(instructions=request.instructions, address=request.address, length=request.length)
    monitor = await QmpMonitors().connect(f"{found.metadata.directory}/monitor.sock")
    try:
        vcpus = tuple((await monitor.thread_roles()).vcpus)
        spec = decode_guest(found.metadata.specification)
        return view_inspection(await look_inside(monitor, spec.architecture, vcpus, look), look)
    finally:
        await monitor.close()


def _disassembled(seen: Any, most: int) -> list[dict[str, str]]:
    if not most:
        return []
    from orchestrator.core.inspection import Mode
    from orchestrator.host.disassembly import disassemble

    code, mode = seen["code"], Mode(seen["vcpus"][0]["mode"])
    found = disassemble(bytes.fromhex(code["bytes"]), int(code["address"], 16), mode, most)
    return [{"address": hex(each.address), "bytes": each.bytes.hex(), "text": each.text} for each in found]

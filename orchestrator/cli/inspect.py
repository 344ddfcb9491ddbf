"""Commands that look inside guests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.options import GuestName, JsonFlag, Socket, print_json, run_async
from orchestrator.errors import UsageError

_MEMORY = re.compile(r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,20}):(0x[0-9a-fA-F]{1,8}|[0-9]{1,9})")


def inspect(
    guest: GuestName,
    registers: Annotated[
        bool, typer.Option("--registers", help="Registers of each vCPU; also without a wish.")
    ] = False,
    disassemble: Annotated[int, typer.Option(min=0, metavar="N", help="N instructions from the next one on.")] = 0,
    memory: Annotated[str | None, typer.Option(metavar="ADDR:LEN", help="LEN bytes at the guest's address.")] = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Look inside a guest. One that runs stands still for as long as that takes, some milliseconds."""
    address, length = _extent(memory)
    daemon = wiring.client.find(socket)
    seen = run_async(wiring.inspect.inspect(daemon, guest, instructions=disassemble, address=address, length=length))
    if json:
        print_json(seen)
        return
    if registers or not (disassemble or memory):
        for vcpu in seen["vcpus"]:
            typer.echo(f"vCPU {vcpu['index']}, {vcpu['mode']}, at {vcpu['pc']}")
            for line in _columns(vcpu["registers"]):
                typer.echo(line)
    for each in seen["disassembly"]:
        typer.echo(f"{each['address']}:  {each['bytes']:22}  {each['text']}")
    for line in _dump(address, bytes.fromhex(seen["memory"]["bytes"])):
        typer.echo(line)
    if len(seen["memory"]["bytes"]) < 2 * length:
        typer.echo(f"{hex(address + len(seen['memory']['bytes']) // 2)}: there is no memory", err=True)


def debug(
    guest: GuestName,
    close: Annotated[bool, typer.Option("--close", help="Close the gdb server again.")] = False,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Open a gdb server on a Unix socket, and print the command that reaches it; an exclusive guest's only."""
    opened = run_async(wiring.inspect.debug(wiring.client.require(socket, "debug"), guest, close=close))
    if json:
        print_json(opened)
    else:
        typer.echo(f"{guest}: closed" if close else opened["command"])


def _extent(memory: str | None) -> tuple[int, int]:
    if memory is None:
        return 0, 0
    match = _MEMORY.fullmatch(memory)
    if match is None:
        raise UsageError(f"--memory {memory[:40]!r} is not possible; write an address and a length, like 0x100000:64")
    return int(match[1], 0), int(match[2], 0)


def _columns(registers: Any) -> Iterator[str]:
    cells = [f"{name:>6} {value:18}" for name, value in registers.items()]
    for at in range(0, len(cells), 4):
        yield "".join(cells[at : at + 4]).rstrip()


def _dump(address: int, content: bytes) -> Iterator[str]:
    for at in range(0, len(content), 16):
        line = content[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        yield f"{address + at:#x}:  {line.hex(' '):47}  {text}"

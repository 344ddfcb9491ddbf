"""Commands that move exclusive guests, and resize them, while they run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.guests import cores_text
from orchestrator.cli.options import GuestName, JsonFlag, Socket, print_json, run_async


def move(
    guest: GuestName,
    cores: Annotated[
        str | None, typer.Option(metavar="LIST", help="The cores to have, like 4-5; else better ones, if there are.")
    ] = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Move an exclusive guest to other cores while it runs; it stands still for a moment."""
    from orchestrator.core.cpulist import parse_cpulist

    wanted = sorted(parse_cpulist(cores)) if cores else []
    path = wiring.client.require(socket, "move")
    _show(run_async(wiring.client.with_client(path, lambda client: client.move(guest, wanted))), json)


def resize(
    guest: GuestName,
    vcpus: Annotated[int, typer.Option(min=1, help="vCPUs to have: from `vcpus` to `max_vcpus` of its definition.")],
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Give an exclusive guest more vCPUs, or take some away, while it runs."""
    path = wiring.client.require(socket, "resize")
    _show(run_async(wiring.client.with_client(path, lambda client: client.resize(guest, vcpus))), json)


def _show(details: Any, json: bool) -> None:
    if json:
        print_json(details)
    else:
        vcpus = "1 vCPU" if len(details["vcpus"]) == 1 else f"{len(details['vcpus'])} vCPUs"
        typer.echo(f"{details['name']}: {details['state']} with {vcpus} on {cores_text(details['vcpus'])}")

"""`orchestrator top`: how cores, guests and users stand, live on a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, Socket, print_json, run_async
from orchestrator.errors import UsageError


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60, metavar="SECONDS", help="Time between two looks.")] = 2.0,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Show cores, guests and users as they stand, until `q`; `?` tells what other keys do. With --json, one look."""
    path = wiring.client.require(socket, "top")
    if json:
        print_json(run_async(wiring.top.Source(path).overview()))
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top: is for a terminal; `orchestrator top --json` prints one look")
    from orchestrator.cli.top_screen import Screen

    run_async(Screen(wiring.top.Source(path), interval).run())

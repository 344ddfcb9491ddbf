"""`orchestrator lab`: a nested host with cores to spare."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator import wiring

app = typer.Typer(help="Boot a nested host to try things on.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run in it, as root.")],
    cpus: Annotated[int | None, typer.Option(help="CPUs, each a core of its own (6 without --topology).")] = None,
    topology: Annotated[str | None, typer.Option(help="For example sockets=2,cores=2,threads=2.")] = None,
    numa: Annotated[int, typer.Option(help="NUMA nodes.")] = 1,
    memory: Annotated[str, typer.Option(help="Memory, with its unit.")] = "4G",
    isolate: Annotated[bool, typer.Option("--isolate", help="Boot with the pool cores isolated.")] = False,
    timeout: Annotated[str, typer.Option(help="Time limit, like 90s, 30m or 1h.")] = "30m",
) -> None:
    """Boot a nested host on this machine's file system (read-only, changes stay in its memory) and run COMMAND in it.

    Its output is passed on as it comes, and its exit code is ours.
    """
    from orchestrator.cli.duration import parse_duration

    code = wiring.lab.run_in_lab(
        command,
        cpus=cpus,
        topology=topology,
        nodes=numa,
        memory=memory,
        isolate=isolate,
        timeout=parse_duration(timeout),
        output=sys.stdout.fileno(),
        tell=lambda line: typer.echo(line, err=True),
    )
    raise typer.Exit(code)

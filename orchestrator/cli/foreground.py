"""`orchestrator run`: guests in the foreground, with a live table on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.duration import parse_duration
from orchestrator.cli.options import Connect, Definitions, JsonFlag, PolicyFile, print_json, run_async

if TYPE_CHECKING:
    from orchestrator.wiring.foreground import RunningGuest, View


def run(
    specs: Definitions,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Guests of each definition.")] = 1,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End after this time, like 30s; else at Ctrl-C."),
    ] = None,
    heartbeats: Annotated[
        int | None,
        typer.Option(min=1, help="End each guest once it printed so many; --for is then the limit."),
    ] = None,
    connect: Connect = None,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Run guests on pool cores until the time is up or Ctrl-C, prove where their threads are, and stop them all."""
    from orchestrator.wiring import foreground

    until = foreground.Until(seconds=parse_duration(duration) if duration else None, heartbeats=heartbeats)
    rules = wiring.site.load_policy(policy)
    prepared = foreground.prepare(specs, count, rules)
    for architecture, choice in prepared.accelerators.items():
        typer.echo(f"{architecture}: {choice.accelerator}, since {choice.why}", err=True)
    where = connect or rules.hypervisor.connect
    with _display() as show:
        view = run_async(foreground.run(prepared, where, until, show, lambda note: typer.echo(note, err=True)))
    results = [_result(view.engine.guests[guest.spec.name]) for guest in view.wanted]
    if json:
        print_json({"guests": results})
    else:
        for result in results:
            typer.echo(_sentence(result))
    if any(result["on_reserved"] or result["crashed"] for result in results):
        raise typer.Exit(1)


@contextmanager
def _display() -> Iterator[Callable[[View], None]]:
    """Show a live table on a terminal; elsewhere nothing, since a log wants the outcome only."""
    if not sys.stderr.isatty():
        yield lambda _view: None
        return
    from rich.console import Console
    from rich.live import Live

    from orchestrator.cli.tables import run_tables

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        yield lambda view: live.update(run_tables(view), refresh=True)


def _result(guest: RunningGuest) -> dict[str, Any]:
    domain = guest.domain
    return {
        "name": guest.name,
        "architecture": domain.spec.architecture,
        "accelerator": domain.accelerator,
        "cores": sorted(guest.cores),
        "heartbeats": guest.heartbeats,
        "cpu_seconds": round(guest.cpu_seconds, 2),
        "threads": len(guest.watch.threads),
        "looks": guest.watch.looks,
        "on_reserved": len(guest.watch.offenders),
        "last_line": guest.last_line,
        "ended": guest.ended,
        "crashed": guest.crashed,
    }


def _sentence(result: dict[str, Any]) -> str:
    cores = ",".join(map(str, result["cores"]))
    return (
        f"{result['name']}: {result['architecture']}, {result['accelerator']}, cores {cores}, "
        f"{result['heartbeats']} heartbeats, {result['on_reserved']} threads on reserved cores "
        f"({result['threads']} threads seen in {result['looks']} looks at /proc), {result['ended']}"
    )

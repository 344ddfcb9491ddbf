"""`orchestrator audit`: could a guest's thread run where it must not?"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.options import Connect, JsonFlag, PolicyFile, connect_to, print_json, print_table, run_async

WATCH_EVERY = 0.2
"""Seconds between two audits of a watch."""

app = typer.Typer(help="Check where guests' threads may run.", no_args_is_help=True, rich_markup_mode=None)


@app.command("xml")
def audit_xml(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="libvirt domain XML.")],
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Judge libvirt domain XML: could any thread run on a reserved core, and through which element?

    Exit code: 0 if no thread could, 2 if a file cannot be read or is no domain XML, else 1.
    """
    from orchestrator.core.xml.audit import audit
    from orchestrator.core.xml.verdict import Kind, Verdict, describe
    from orchestrator.errors import UsageError

    reserved = wiring.site.reserved_cores(policy)
    verdicts: list[tuple[Path, Verdict]] = []
    for file in files:
        try:
            verdicts.append((file, audit(wiring.site.read_domain(file), reserved)))
        except UsageError as error:
            verdicts.append((file, Verdict(Kind.INVALID, reason=str(error).removeprefix(f"{file}: "))))
    if json:
        print_json({"files": [{"file": str(file), **describe(verdict)} for file, verdict in verdicts]})
    else:
        for file, verdict in verdicts:
            _print_verdict(file, verdict)
    kinds = {verdict.kind for _, verdict in verdicts}
    if kinds & {Kind.INVALID, Kind.NOT_A_DOMAIN}:
        raise typer.Exit(2)
    if kinds != {Kind.CONFINED}:
        raise typer.Exit(1)


def _print_verdict(file: Path, verdict: object) -> None:
    from orchestrator.core.xml.verdict import Verdict

    assert isinstance(verdict, Verdict)
    typer.echo(f"{file}: {verdict.summary}")
    for exposure in verdict.exposures:
        where = f"{file}:{exposure.line}" if exposure.line else str(file)
        typer.echo(f"  {where}: {exposure.element}: {exposure.reason}")
    for caution in verdict.cautions:
        typer.echo(f"  {file}: caution: {caution}")


@app.command("pins")
def audit_pins(
    connect: Connect = None,
    policy: PolicyFile = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and tell what strays and what is back, until Ctrl-C.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Compare the live threads of every QEMU process of ours with their placement. Exit code 1 if one strays.

    A daemon puts stray threads back by itself, and records what it has found: see `events` and the journal.
    """
    if watch:
        pins = wiring.pins.PinWatch(connect_to(connect, policy), wiring.site.reserved_cores(policy))
        with contextlib.suppress(KeyboardInterrupt):
            run_async(_watch(pins, json=json))
        return
    reports = run_async(wiring.pins.audit_pins(connect_to(connect, policy), wiring.site.reserved_cores(policy)))
    if json:
        print_json({"guests": [report.describe() for report in reports]})
    else:
        print_table(
            ("GUEST", "PID", "THREADS", "ON RESERVED", "STRAYS"),
            (
                (
                    report.name,
                    report.pid or "-",
                    report.threads,
                    report.on_reserved,
                    "; ".join(report.strays) or "none",
                )
                for report in reports
            ),
        )
    if any(report.strays or report.on_reserved for report in reports):
        raise typer.Exit(1)


async def _watch(pins: wiring.pins.PinWatch, *, json: bool) -> None:
    import asyncio
    import time
    from json import dumps

    while True:
        for guest, what, thread in await pins.look():
            at = time.strftime("%H:%M:%S")
            told = dumps({"at": at, "guest": guest, "what": what, "thread": thread})
            typer.echo(told if json else f"{at}  {guest}: {'' if what == 'astray' else 'no longer: '}{thread}")
        await asyncio.sleep(WATCH_EVERY)

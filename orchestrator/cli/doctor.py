"""`orchestrator doctor`: every prerequisite, and the command that mends it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.options import Connect, JsonFlag, PolicyFile, connect_to, print_json, run_async


def doctor(
    guest: Annotated[
        str | None, typer.Option("--guest", help="A guest whose sandbox is to be looked at, as the kernel sees it.")
    ] = None,
    connect: Connect = None,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Look at everything guests need on this host. Exit code 4 if something is missing without which none runs.

    With --guest: what keeps that guest's QEMU from everything else, and what does not.
    """
    from orchestrator.wiring.doctor import Level, findings, guest_findings

    if guest is None:
        found = list(findings(wiring.site.load_policy(policy)))
    else:
        found = run_async(guest_findings(guest, connect_to(connect, policy), policy))
    if json:
        print_json({"findings": [finding.describe() for finding in found]})
    else:
        width = max(len(finding.name) for finding in found)
        for finding in found:
            typer.echo(f"{finding.level:8}{finding.name:{width}}  {finding.found}")
            if finding.mend:
                typer.echo(f"{'':8}{'':{width}}  mend: {finding.mend}")
    if any(finding.level is Level.MISSING for finding in found):
        raise typer.Exit(4)

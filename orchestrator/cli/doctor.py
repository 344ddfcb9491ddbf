"""`orchestrator doctor`: every prerequisite, and the command that mends it."""

from __future__ import annotations

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, PolicyFile, print_json


def doctor(policy: PolicyFile = None, json: JsonFlag = False) -> None:
    """Look at everything guests need on this host. Exit code 4 if something is missing without which none runs."""
    from orchestrator.wiring.doctor import Level, findings

    found = list(findings(wiring.site.load_policy(policy)))
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

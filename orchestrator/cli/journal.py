"""`orchestrator journal`: is the record of what was done as it was written?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from orchestrator.wiring.journals import Report

app = typer.Typer(help="Look at the journals of privileged acts.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command()
def verify(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="A journal's files, in order; else this host's.")
    ] = None,
    head: Annotated[
        str, typer.Option("--head", metavar="HASH", help="A head that was kept elsewhere: HASH or NUMBER:HASH.")
    ] = "",
    heads: Annotated[Path | None, typer.Option("--heads", help="A file of signed heads, for FILE.")] = None,
    key: Annotated[str, typer.Option("--key", help="The only public key that heads may be signed with.")] = "",
    json: JsonFlag = False,
) -> None:
    """Look at every record from the first on, and name the first that is changed, missing, added, reordered or cut off.

    Exit code 1 if there is one.
    """
    journals = wiring.journals
    if files or head:
        reports = [journals.verify_files(files or journals.own_files(), head, heads, key)]
    else:
        reports = journals.verify_own(key)
    if json:
        print_json([_described(report) for report in reports])
    else:
        for report in reports:
            _print(report)
    if not all(report.is_whole for report in reports):
        raise typer.Exit(1)


def _described(report: Report) -> dict[str, Any]:
    found = report.verdict
    return {
        "journal": report.name,
        "files": list(report.files),
        "whole": report.is_whole,
        "records": found.whole.seq,
        "hash": found.whole.hash,
        "record": found.seq or None,
        "damage": found.damage,
        "why": found.why,
        "line": found.line or None,
        "heads": report.kept,
        "wrong_heads": list(report.wrong),
        "append_only": report.append_only,
    }


def _print(report: Report) -> None:
    kept = f"{report.kept} heads kept elsewhere" if report.kept else "no head that was kept elsewhere"
    flag = "append-only" if report.append_only else "not marked append-only"
    typer.echo(f"{report.name}: {report.verdict} ({kept}; the file is {flag})")
    for line in report.wrong:
        typer.echo(line)

"""Options that several commands share, and how their results leave the program."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from orchestrator import wiring

T = TypeVar("T")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def shipped_policy(given: Path | None) -> Path | None:
    """Return the file of a policy that may have been given by its name."""
    return None if given is None else wiring.shipped.policy(given)


def _definitions(given: list[Path]) -> list[Path]:
    return [wiring.shipped.definition(each) for each in given]


PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="A policy file, or a shipped policy's name; built-in without.", callback=shipped_policy
    ),
]
PolicyArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A policy file, or a shipped policy's name.", callback=shipped_policy)
]
Definition = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC",
        help="A guest definition, or a shipped one's name.",
        callback=lambda given: _definitions([given])[0],
    ),
]
Definitions = Annotated[
    list[Path],
    typer.Argument(metavar="SPEC...", help="Guest definitions, or shipped ones' names.", callback=_definitions),
]
Connect = Annotated[
    str | None,
    typer.Option("--connect", "-c", help="'embed' or a libvirt URI; else what the policy says."),
]

Socket = Annotated[
    Path | None,
    typer.Option("--socket", envvar="ORCHESTRATOR_SOCKET", help="The daemon's socket; else the usual one."),
]


User = Annotated[str | None, typer.Option("--user", help="Act for this user, as members of the admin group may.")]


def guest_names(incomplete: str) -> list[str]:
    """Complete the name of a guest that runs here, for the shell."""
    try:
        daemon = wiring.client.find(None)
        if daemon is not None:
            guests = run_async(wiring.client.with_client(daemon, lambda client: client.guests()))
            names = [guest["name"] for guest in guests]
        else:
            names = [domain.name for domain in run_async(wiring.guests.live_domains(wiring.guests.EMBED))]
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]


GuestName = Annotated[str, typer.Argument(metavar="GUEST", help="A guest's name.", autocompletion=guest_names)]
GuestNames = Annotated[list[str], typer.Argument(metavar="GUEST...", help="Guests' names.", autocompletion=guest_names)]


def run_async(act: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. asyncio is imported only now: it costs a tenth of what --help may take."""
    import asyncio

    return asyncio.run(act)


def connect_to(connect: str | None, policy: Path | None) -> str:
    """Return where libvirt is: the flag's word, else the policy's."""
    return connect or wiring.site.load_policy(policy).hypervisor.connect


def teller(*, json: bool) -> Callable[[str], None]:
    """Return what tells on stderr what happens, a line each, or an object each."""
    from datetime import UTC, datetime

    def tell(line: str) -> None:
        if json:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = jsonlib.dumps({"at": at, "message": line})
        typer.echo(line, err=True)

    return tell


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    typer.echo(jsonlib.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a plain table: columns as wide as their content on every terminal and in every pipe."""
    cells = [tuple(columns), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

"""Commands about payloads: read-only images that guests map."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, PolicyFile, Socket, print_json, print_table, run_async
from orchestrator.errors import FailedError

app = typer.Typer(help="Keep read-only images that guests map, each content once.", no_args_is_help=True)

_COUNTS = ("mapped", "resident", "proportional", "shared", "private_clean", "private_dirty")


def payload_names(incomplete: str) -> list[str]:
    """Complete the name of a payload, for the shell."""
    try:
        listed = run_async(_commands(None, None).listed())
    except Exception:
        return []
    return [each["name"] for each in listed["payloads"] if each["name"].startswith(incomplete)]


PayloadName = Annotated[
    str, typer.Argument(metavar="PAYLOAD", help="Name, OWNER/NAME or digest.", autocompletion=payload_names)
]
PayloadNames = Annotated[
    list[str] | None, typer.Argument(metavar="PAYLOAD...", help="All without.", autocompletion=payload_names)
]


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The image; it stays where and as it is.")],
    name: Annotated[str | None, typer.Option(help="What to call it; else as the file.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody map it; else only you can.")] = False,
    policy: PolicyFile = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Add a file to the store. Adding the same again only says whether it is public from now on."""
    with _waiting(f"adding {file}"):
        added = run_async(_commands(policy, socket).add(str(file.absolute()), name or file.name, public=public))
    if json:
        print_json(added)
    else:
        typer.echo(f"{added['name']}: {added['size']} bytes, {_access(added)}, {added['digest']}")


@app.command()
def ls(policy: PolicyFile = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Show the payloads that you may map, and how much of your quota is used."""
    listed = run_async(_commands(policy, socket).listed())
    if json:
        print_json(listed)
        return
    print_table(
        ("NAME", "OWNER", "SIZE", "ACCESS", "GUESTS", "DIGEST"),
        (
            (each["name"], each["owner"], each["size"], _access(each), ",".join(each["guests"]) or "-", each["digest"])
            for each in listed["payloads"]
        ),
    )
    typer.echo(f"{listed['used']} of {listed['quota']} bytes used", err=True)


@app.command()
def rm(payload: PayloadName, policy: PolicyFile = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Remove a payload that no guest maps."""
    removed = run_async(_commands(policy, socket).remove(payload))
    if json:
        print_json(removed)
    else:
        typer.echo(f"{removed['owner']}/{removed['name']}: removed")


@app.command()
def verify(
    payloads: PayloadNames = None, policy: PolicyFile = None, socket: Socket = None, json: JsonFlag = False
) -> None:
    """Read payloads anew, all unless some are named, and compare them with their digests."""
    commands = _commands(policy, socket)
    listed = [] if payloads else run_async(commands.listed())["payloads"]
    results: list[dict[str, str | None]] = []
    for each in payloads or [f"{payload['owner']}/{payload['name']}" for payload in listed]:
        fault = None
        with _waiting(f"reading {each}"):
            try:
                run_async(commands.verify(each))
            except FailedError as error:
                fault = str(error)
        results.append({"payload": each, "fault": fault})
    if json:
        print_json({"verified": results})
    else:
        for result in results:
            typer.echo(result["fault"] or f"{result['payload']}: as it was added")
    if any(result["fault"] for result in results):
        raise typer.Exit(1)


@app.command()
def gc(policy: PolicyFile = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Remove files that were left behind when an add was killed."""
    collected = run_async(_commands(policy, socket).collect())
    if json:
        print_json(collected)
    else:
        typer.echo(f"{collected['files']} files removed, {collected['bytes']} bytes given back")


@app.command()
def shares(policy: PolicyFile = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Show who maps each payload, and how much of it is in memory: shared, private, and each guest's part (Pss)."""
    told = run_async(_commands(policy, socket).shares())
    if json:
        print_json(told)
        return
    lines = [
        [row["payload"] or row["digest"][:16], row["guest"], *(row[key] // 1024 for key in _COUNTS)]
        for row in told["shares"]
    ]
    sums = {line[0]: [0] * len(_COUNTS) for line in lines}
    for payload, _, *counts in lines:
        sums[payload] = [one + more for one, more in zip(sums[payload], counts, strict=True)]
    lines += [[payload, "(all)", *counts] for payload, counts in sums.items()]
    columns = ("PAYLOAD", "GUEST", *(f"{key.upper().replace('_', '-')}-K" for key in _COUNTS))
    print_table(columns, sorted(lines, key=lambda line: (line[0], line[1] == "(all)", line[1])))


def _commands(policy: Path | None, socket: Path | None) -> Any:
    return wiring.payloads.PayloadCommands(wiring.client.find(socket), wiring.site.load_policy(policy))


def _access(payload: Any) -> str:
    return "public" if payload["public"] else "private"


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Show on a terminal that something goes on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield

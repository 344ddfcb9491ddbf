"""Guests' states: save and restore, snapshots, templates and clones. The daemon carries them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.options import GuestName, JsonFlag, Socket, print_json, print_table, run_async

As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="The name under which it is kept.")]
StateName = Annotated[str, typer.Argument(metavar="NAME", help="The name under which it is kept.")]

saved = typer.Typer(help="Guests that were saved.", no_args_is_help=True, rich_markup_mode=None)
snapshot = typer.Typer(help="Snapshots of guests, memory and disks.", no_args_is_help=True, rich_markup_mode=None)
template = typer.Typer(help="Templates, from which clones start warm.", no_args_is_help=True, rich_markup_mode=None)


def save(guest: GuestName, to: As = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Write a guest's memory, devices and overlays to the disk and end it; `restore` has it go on from there."""
    told = _ask("save", socket, "POST", "guests", guest, "save", name=to)
    _tell(told, json, f"{guest}: saved as {told['name']}; `orchestrator restore {told['name']}` has it go on")


def restore(name: StateName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Have a guest that was saved go on where it was; it is admitted and placed as in any start."""
    told = _ask("restore", socket, "POST", "states", "saved", name, "restore")
    _tell(told, json, f"{told['guest']}: restored from {name}")


def clone(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="A template's name.")],
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many clones.")] = 1,
    name: Annotated[list[str] | None, typer.Option("--name", help="A clone's name; may be given again.")] = None,
    staged: Annotated[bool, typer.Option("--staged", help="Have them stand still until they are resumed.")] = False,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Start guests that go on where a template was made, in memory that is the template's until they change it."""
    path = ("states", "template", template, "clone")
    told = _ask("clone", socket, "POST", *path, count=count, names=name or [], staged=staged)
    if json:
        print_json(told)
        return
    for note in told["notes"]:
        typer.echo(f"note: {note}", err=True)
    for each in told["guests"]:
        typer.echo(f"{each}: {'staged' if staged else 'started'} from {template}")


def gc(socket: Socket = None, json: JsonFlag = False) -> None:
    """Remove files that a save, a snapshot or a template has left unfinished."""
    removed = list(run_async(wiring.states.gc(socket)))
    _tell({"removed": removed}, json, *removed or ["nothing was left unfinished"])


@saved.command("ls")
def saved_ls(socket: Socket = None, json: JsonFlag = False) -> None:
    """List the guests that were saved, and whether they can be restored here."""
    _list("saved ls", "saved", socket, json)


@saved.command("rm")
def saved_rm(name: StateName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Remove a saved guest's state."""
    _remove("saved", name, socket, json)


@snapshot.command("create")
def snapshot_create(guest: GuestName, to: As = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Keep a guest as it is now; it goes on. Without --as the snapshot is called by date and time."""
    told = _ask("snapshot create", socket, "POST", "guests", guest, "snapshots", name=to)
    _tell(told, json, f"{guest}: snapshot {told['name']}")


@snapshot.command("ls")
def snapshot_ls(guest: GuestName, socket: Socket = None, json: JsonFlag = False) -> None:
    """List a guest's snapshots."""
    _list("snapshot ls", "snapshot", socket, json, guest)


@snapshot.command("revert")
def snapshot_revert(guest: GuestName, name: StateName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Have a guest go on from a snapshot, whether it runs or has ended; what it is now is lost."""
    told = _ask("snapshot revert", socket, "POST", "guests", guest, "snapshots", name, "revert")
    _tell(told, json, f"{guest}: reverted to {name}")


@snapshot.command("rm")
def snapshot_rm(guest: GuestName, name: StateName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Remove a guest's snapshot."""
    _remove("snapshot", f"{guest}@{name}", socket, json)


@template.command("create")
def template_create(guest: GuestName, to: As = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Make a template of a guest as it is now; it goes on."""
    told = _ask("template create", socket, "POST", "guests", guest, "template", name=to)
    made = told["name"]
    _tell(told, json, f"{guest}: template {made}; `orchestrator clone {made}` starts guests from it")


@template.command("ls")
def template_ls(socket: Socket = None, json: JsonFlag = False) -> None:
    """List the templates, and whether clones can be started from them here."""
    _list("template ls", "template", socket, json)


@template.command("rm")
def template_rm(name: StateName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Remove a template; its clones go on."""
    _remove("template", name, socket, json)


def _ask(what: str, socket: Path | None, method: str, *path: str, **wanted: Any) -> Any:
    return run_async(wiring.states.ask(wiring.client.require(socket, what), method, *path, **wanted))


def _tell(told: Any, json: bool, *lines: str) -> None:
    if json:
        print_json(told)
        return
    for line in lines:
        typer.echo(line)


def _remove(kind: str, name: str, socket: Path | None, json: bool) -> None:
    told = _ask(f"{kind} rm", socket, "DELETE", "states", kind, name)
    _tell(told, json, f"{name.rpartition('@')[2]}: removed")


def _list(what: str, kind: str, socket: Path | None, json: bool, guest: str | None = None) -> None:
    states = _ask(what, socket, "GET", "states", kind)["states"]
    states = [state for state in states if guest in (None, state["guest"])]
    if json:
        print_json({"states": states})
        return
    print_table(
        ("NAME", "GUEST", "OWNER", "ARCHITECTURE", "TAKEN", "MIB", "FITS"),
        (
            (
                *(state[key] for key in ("name", "guest", "owner", "architecture", "taken_at")),
                f"{state['bytes'] / 1024**2:.1f}",
                "; ".join(state["misfits"]) or "yes",
            )
            for state in states
        ),
    )

"""`orchestrator admin`: emergency acts, for root at a console of this machine. Without a command it asks for some."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.duration import parse_duration
from orchestrator.cli.options import JsonFlag, print_json
from orchestrator.errors import OrchestratorError

app = typer.Typer(help="Emergency acts, for root at a console of this machine.", rich_markup_mode=None)

Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the journal. Asked for without it.")]
Guests = Annotated[list[str] | None, typer.Argument(metavar="[GUEST...]", help="Guests' names.")]
OfUser = Annotated[str, typer.Option("--user", help="All guests of this user instead.")]
UserName = Annotated[str, typer.Argument(metavar="USER", help="A user's name.")]

_PROMPT = "admin> "


@app.callback(invoke_without_command=True)
def _console(context: typer.Context) -> None:
    """Ask for commands, if none was given: no process need be started then, which may be impossible."""
    if context.invoked_subcommand is None:
        _converse()


@app.command()
def kill(guests: Guests = None, user: OfUser = "", reason: Reason = "", json: JsonFlag = False) -> None:
    """End guests at once, without the scheduler's help or theirs."""
    _ask("kill", reason, json, guests=tuple(guests or ()), user=user)


@app.command()
def freeze(guests: Guests = None, user: OfUser = "", reason: Reason = "", json: JsonFlag = False) -> None:
    """Have guests stand still, with all that they have in memory."""
    _ask("freeze", reason, json, guests=tuple(guests or ()), user=user)


@app.command()
def thaw(guests: Guests = None, user: OfUser = "", reason: Reason = "", json: JsonFlag = False) -> None:
    """Let frozen guests go on."""
    _ask("thaw", reason, json, guests=tuple(guests or ()), user=user)


@app.command()
def ban(
    user: UserName,
    duration: Annotated[str, typer.Option("--for", help="For so long, like 30m or 24h; else until `unban`.")] = "",
    reason: Reason = "",
    json: JsonFlag = False,
) -> None:
    """Let a user do nothing through the scheduler, and start none of his guests; those that run go on."""
    seconds = max(1, round(parse_duration(duration))) if duration else None
    _ask("ban", reason, json, user=user, seconds=seconds)


@app.command()
def unban(user: UserName, reason: Reason = "", json: JsonFlag = False) -> None:
    """Lift a ban that was laid here."""
    _ask("unban", reason, json, user=user)


@app.command()
def reclaim(
    cores: Annotated[list[str], typer.Argument(metavar="CORE...", help="Pool cores, like 2 or 2-5.")],
    reason: Reason = "",
    json: JsonFlag = False,
) -> None:
    """End every guest of which a thread may run on one of these cores."""
    from orchestrator.core.cpulist import parse_cpulist

    _ask("reclaim", reason, json, cores=tuple(sorted(parse_cpulist(",".join(cores)))))


@app.command()
def lockdown(
    lift: Annotated[bool, typer.Option("--lift", help="End it.")] = False, reason: Reason = "", json: JsonFlag = False
) -> None:
    """Have the scheduler take no requests, root's neither, and launch no guests; those that run go on."""
    _ask("lift" if lift else "lockdown", reason, json)


@app.command()
def status(json: JsonFlag = False) -> None:
    """Show the scheduler's heartbeat, the guests, bans, lockdown, and how far the guard's journal goes."""
    _ask("status", "", json)


@app.command()
def journal(
    last: Annotated[int, typer.Option("--last", min=1, max=200, help="So many records.")] = 20, json: JsonFlag = False
) -> None:
    """Show the last acts, and the tries that were refused."""
    _ask("journal", "", json, last=last)


def _ask(act: str, reason: str, json: bool, **fields: Any) -> None:
    from orchestrator.core.emergency import LOOKS, Act, Request

    if not reason and Act(act) not in LOOKS:
        reason = typer.prompt("reason")
    reply = wiring.admin.ask(Request(act=Act(act), reason=reason, **fields))
    if json:
        print_json({"code": reply.code, "lines": list(reply.lines), **reply.data})
    else:
        for line in reply.lines:
            typer.echo(line, err=reply.code != 0)
    if reply.code:
        raise typer.Exit(reply.code)


def _converse() -> None:
    """Read commands from the terminal until its end; what each needs is loaded before."""
    from orchestrator.core import cpulist, emergency  # noqa: F401 (loaded now, while it can be)

    command = typer.main.get_command(app)
    typer.echo(f"{', '.join(each.callback.__name__ for each in app.registered_commands if each.callback)}; Ctrl-D ends")
    while True:
        try:
            words = shlex.split(input(_PROMPT))
        except EOFError:
            return
        except ValueError as error:
            typer.echo(f"{error}", err=True)
            continue
        if words:
            _obey(command, words)


def _obey(command: Any, words: list[str]) -> None:
    try:
        command.main(words, prog_name="admin", standalone_mode=False)
    except OrchestratorError as error:
        for line in error.lines():
            typer.echo(line, err=True)
    except Exception as error:
        told = getattr(error, "format_message", None)  # click's own, for wrong usage
        if told is None:
            raise
        typer.echo(told(), err=True)

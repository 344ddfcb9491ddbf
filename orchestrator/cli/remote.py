"""Commands that a running daemon carries out."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.guests import cell, cores_text, end_here
from orchestrator.cli.options import (
    Connect,
    Definitions,
    GuestName,
    GuestNames,
    JsonFlag,
    PolicyFile,
    Socket,
    User,
    print_json,
    run_async,
)


def start(
    specs: Definitions,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Guests of each definition.")] = 1,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would happen; exit code 3 if it would be refused."),
    ] = False,
    user: User = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Start guests under the daemon, all or none; they go on until they are stopped."""
    path = wiring.client.require(socket, "start")
    started = run_async(wiring.client.start(path, specs, count, dry_run=dry_run, user=user))
    for architecture, choice in started["accelerators"].items():
        typer.echo(f"{architecture}: {choice['accelerator']}, since {choice['why']}", err=True)
    if json:
        print_json(started)
    elif dry_run:
        _print_foreseen(started)
    else:
        _print_started(started)
    if dry_run and started["refused"]:
        raise typer.Exit(3)


def _print_started(started: Any) -> None:
    for guest in started["guests"]:
        where = f" on {cores_text(guest['cores'])}" if guest["cores"] else ""
        typer.echo(f"{guest['name']}: {guest['state']}{where}")


def _print_foreseen(foreseen: Any) -> None:
    for guest in foreseen["guests"]:
        reasons = [
            f"{each['rule']}: wanted {each['wanted']}, available {each['available']}"
            + (f" of {each['limit']}" if each["limit"] else "")
            for each in guest["refused_by"]
        ]
        if reasons:
            typer.echo(f"{guest['name']}: would be refused: {'; '.join(reasons)}")
        elif guest["mode"] == "exclusive":
            typer.echo(f"{guest['name']}: would run on {cores_text(guest['cores'])}")
        else:
            typer.echo(f"{guest['name']}: would take turns, launched on {cores_text(guest['cores'])}")
    if foreseen["refused"]:
        typer.echo("nothing would be started")


def pause(guests: GuestNames, socket: Socket = None, json: JsonFlag = False) -> None:
    """Let guests stand still until they are resumed; exclusive ones keep their cores."""
    _act("pause", "paused", guests, socket, json)


def resume(guests: GuestNames, socket: Socket = None, json: JsonFlag = False) -> None:
    """Let paused guests go on."""
    _act("resume", "resumed", guests, socket, json)


def restart(guests: GuestNames, socket: Socket = None, json: JsonFlag = False) -> None:
    """End guests and start them anew by the same definitions; also those that have ended."""
    _act("restart", "restarted", guests, socket, json)


def rm(guests: GuestNames, socket: Socket = None, json: JsonFlag = False) -> None:
    """Forget guests that have ended; their serial logs stay until a guest of that name starts."""
    _act("rm", "removed", guests, socket, json)


def kill(
    guests: GuestNames,
    connect: Connect = None,
    policy: PolicyFile = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """End guests' processes at once, without their help."""
    path = None if connect else wiring.client.find(socket)
    if path is None:
        end_here("kill", "killed", set(guests), connect, policy, json)
    else:
        _act("kill", "killed", guests, path, json)


def show(guest: GuestName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Show all there is to know of a guest: where it is, what was seen of it, how it ended, its definition."""
    path = wiring.client.require(socket, "show")
    details = run_async(wiring.client.with_client(path, lambda client: client.guest(guest)))
    if json:
        print_json(details)
        return
    rows = list(_flat(details))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        typer.echo(f"{key:{width}}  {value}".rstrip())


def explain(guest: GuestName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Say why a guest waits, for whom, and until when at most; or where it runs."""
    path = wiring.client.require(socket, "explain")
    told = run_async(wiring.client.with_client(path, lambda client: client.explain(guest)))
    if json:
        print_json(told)
        return
    typer.echo(", ".join([f"{guest}: {told['state']}", *_when(told)]))
    for reason in told["reasons"]:
        typer.echo(f"  {reason}")
    for holder in told["holders"]:
        until = "for good" if holder["until"] is None else f"for {_seconds(holder['until'])} more"
        typer.echo(f"  {cores_text(holder['cores'])}: {holder['guest']} of {holder['owner']}, {until}")


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more happens, until Ctrl-C.")] = False,
    since: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Only those after this number.")] = 0,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Print what has happened to guests, a line each, as far as it is kept; with --json an object in each line."""
    path = wiring.client.require(socket, "events")

    async def print_all() -> None:
        async for event in wiring.client.events(path, since, follow=follow):
            typer.echo(jsonlib.dumps(event) if json else _event(event))

    try:
        run_async(print_all())
    except KeyboardInterrupt:
        raise typer.Exit from None


def _act(what: str, done: str, guests: list[str], socket: Path | None, json: bool) -> None:
    names = list(dict.fromkeys(guests))
    run_async(wiring.client.act(wiring.client.require(socket, what), what, names))
    if json:
        print_json({done: names})
    else:
        for name in names:
            typer.echo(f"{name}: {done}")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield a line's key and value for each leaf of a table, the definition's tables too."""
    for key, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{prefix}{key}.")
        elif isinstance(each, list) and any(isinstance(part, dict) for part in each):
            for number, part in enumerate(each):
                yield from _flat(part, f"{prefix}{key}[{number}].")
        else:
            yield f"{prefix}{key}", cell(each)


def _when(told: Any) -> Iterator[str]:
    if told["cores"]:
        yield f"on {cores_text(told['cores'])}"
    if told["since"] is not None:
        yield f"for {_seconds(told['since'])}"
    if told["position"] is not None:
        yield f"number {told['position']} in order"
    if told["latest"] is not None:
        yield f"runs within {_seconds(told['latest'])}"


def _seconds(seconds: float) -> str:
    from orchestrator.core.durations import about

    return about(max(0, int(seconds * 10**9)))


def _event(event: Any) -> str:
    if event.get("restarted"):
        return "the daemon has been started anew; what it had told before is in its log: `orchestrator report`"
    if "missed" in event:
        return f"{event['missed']} events are missing here: no longer kept when they were asked for"
    parts = [str(event["seq"]), event["at"], event["guest"] or "-", event["what"]]
    parts += [cores_text(event["cores"])] if event["cores"] else []
    waited = event["waited"]
    parts += [f"after {waited['seconds']:g} s of at most {waited['bound']:g} s"] if waited else []
    return "  ".join(parts) + (f": {event['why']}" if event["why"] else "")

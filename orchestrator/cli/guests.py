"""Commands about guests that run, and about definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.options import (
    Connect,
    Definition,
    GuestName,
    JsonFlag,
    PolicyFile,
    Socket,
    User,
    connect_to,
    guest_names,
    print_json,
    print_table,
    run_async,
)
from orchestrator.errors import UsageError


def xml(
    spec: Definition,
    cores: Annotated[str | None, typer.Option(help="Pool cores to place it on, like 2-3; vCPUs first.")] = None,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Print the libvirt domain XML of a definition. Without --cores it is placed as on an idle host."""
    rules = wiring.site.load_policy(policy)
    domain, note = wiring.definitions.domain_to_print(spec, cores, rules)
    if note:
        typer.echo(f"note: {note}", err=True)
    from orchestrator.core.xml.render import render

    text = render(domain)
    if json:
        print_json({"name": domain.spec.name, "cores": list(domain.placement.held), "xml": text})
    else:
        typer.echo(text, nl=False)


def ps(
    connect: Connect = None,
    policy: PolicyFile = None,
    user: User = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Show the guests that run here, whoever started them; the daemon shows those that have ended too."""
    guests = _rows(connect, policy, user, socket)
    if json:
        print_json({"guests": guests})
        return
    columns = ("name", "owner", "architecture", "mode", "accelerator", "state", "cores", "cpu_seconds", "pid")
    print_table(
        [column.upper().replace("_SECONDS", "-S") for column in columns],
        ([cell(guest[column]) for column in columns] for guest in guests),
    )
    for guest in guests:
        if guest["serial_lost"]:
            lost = f"{guest['serial_lost']} bytes of its serial output could not be kept"
            typer.echo(f"{guest['name']}: {lost}", err=True)


def _rows(connect: str | None, policy: Path | None, user: str | None, socket: Path | None) -> list[Any]:
    daemon = _daemon(connect, user, socket)
    if daemon is not None:
        rows: list[Any] = run_async(wiring.client.with_client(daemon, lambda client: client.guests(), user))
        return rows
    from orchestrator.cli.describe import describe_guest

    domains = run_async(wiring.guests.live_domains(connect_to(connect, policy)))
    return [describe_guest(domain, wiring.guests.cpu_seconds(domain)) for domain in domains]


def _daemon(connect: str | None, user: str | None, socket: Path | None) -> Path | None:
    """Return the socket of the daemon, None if none runs or is to be asked; nobody else knows of users."""
    if user is not None:
        return wiring.client.require(socket, "--user")
    return None if connect else wiring.client.find(socket)


def cores(connect: Connect = None, policy: PolicyFile = None, socket: Socket = None, json: JsonFlag = False) -> None:
    """Show each core, its role, and the guest that holds it."""
    from orchestrator.cli.describe import describe_cores

    rules = wiring.site.load_policy(policy)
    daemon = None if connect else wiring.client.find(socket)
    if daemon is not None:
        rows = run_async(wiring.client.with_client(daemon, lambda client: client.cores()))
    else:
        domains = run_async(wiring.guests.live_domains(connect or rules.hypervisor.connect))
        rows = describe_cores(wiring.site.load_topology(rules), domains)
    if json:
        print_json({"cores": rows})
        return
    print_table(
        ("CORE", "ROLE", "NODE", "HOLDER"),
        ((row["id"], row["role"], cell(row["node"]), _holder(row)) for row in rows),
    )


def _holder(row: Any) -> str:
    return "another user's" if row["held"] and row["holder"] is None else cell(row["holder"])


def logs(
    guest: GuestName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it prints more, until Ctrl-C.")] = False,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Print what a guest's serial port has printed; also after it ended, until a guest of that name starts anew."""
    daemon = _keeper(guest, socket)
    pieces: list[bytes] = []

    async def ask(path: Path) -> None:
        async for piece in wiring.client.log(path, guest, follow=follow and not json):
            take(piece)

    def take(piece: bytes) -> None:
        if json:
            pieces.append(piece)
        else:
            typer.echo(piece, nl=False)

    try:
        if daemon is not None:
            run_async(ask(daemon))
        else:
            for piece in wiring.serial.serial_pieces(guest, follow=follow and not json):
                take(piece)
    except KeyboardInterrupt:
        raise typer.Exit from None
    if json:
        print_json({"name": guest, "lines": b"".join(pieces).decode("utf-8", "replace").splitlines()})


def console(guest: GuestName, socket: Socket = None, json: JsonFlag = False) -> None:
    """Attach this terminal to a guest's serial port; Ctrl-] leaves. With --json, print where its socket is."""
    daemon = _keeper(guest, socket)
    if daemon is not None and not json:
        run_async(wiring.client.console(daemon, guest))
        return
    port = wiring.serial.serial_socket(guest)
    if json:
        print_json({"name": guest, "socket": str(port)})
    else:
        wiring.serial.attach_console(port)


def _keeper(guest: str, socket: Path | None) -> Path | None:
    """Return the daemon that has what a guest prints; None if it can be read here, or nobody else has it."""
    return None if socket is None and wiring.serial.is_here(guest) else wiring.client.find(socket)


def stop(
    guests: Annotated[list[str] | None, typer.Argument(metavar="GUEST...", autocompletion=guest_names)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All guests.")] = False,
    connect: Connect = None,
    policy: PolicyFile = None,
    user: User = None,
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """End guests: their processes are ended and their cores given back."""
    names = set(guests or ())
    if bool(names) == everything:
        raise UsageError("stop: name guests, or give --all; `orchestrator ps` lists them")
    daemon = _daemon(connect, user, socket)
    if daemon is None:
        end_here("stop", "stopped", names, connect, policy, json)
        return
    known = run_async(wiring.client.with_client(daemon, lambda client: client.guests(), user))
    chosen = [guest["name"] for guest in known if guest["state"] != "stopped"] if everything else sorted(names)
    run_async(wiring.client.act(daemon, "stop", chosen, user))
    _print_ended("stopped", chosen, json)


def end_here(what: str, done: str, names: set[str], connect: str | None, policy: Path | None, json: bool) -> None:
    """End guests without a daemon, all if none is named."""
    where = connect_to(connect, policy)
    live = run_async(wiring.guests.live_domains(where))
    unknown = names - {domain.name for domain in live}
    if unknown:
        raise UsageError(f"{what}: no guest is called {', '.join(sorted(unknown))}; `orchestrator ps` lists them")
    chosen = [domain for domain in live if not names or domain.name in names]
    if chosen:
        run_async(wiring.guests.stop_domains(chosen, where))
    _print_ended(done, [domain.name for domain in chosen], json)


def _print_ended(done: str, names: list[str], json: bool) -> None:
    if json:
        print_json({done: names})
    else:
        for name in names:
            typer.echo(f"{name}: {done}")


def cell(value: object) -> str:
    """Return a value for a table."""
    if value is None or value in ([], ""):
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def cores_text(cores: list[int]) -> str:
    """Return cores in words."""
    return f"core{'s' if len(cores) > 1 else ''} {','.join(map(str, cores))}"

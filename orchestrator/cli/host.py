"""`orchestrator host`: what this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator import wiring
from orchestrator.cli import noise, shield
from orchestrator.cli.options import JsonFlag, PolicyFile, print_json, print_table

app = typer.Typer(
    help="Look at this host, and keep all else off its guests' cores.", no_args_is_help=True, rich_markup_mode=None
)


for name, command in (
    ("shield", shield.shield),
    ("unshield", shield.unshield),
    ("status", shield.status),
    ("kernel-args", shield.kernel_args),
    ("noise", noise.noise),
):
    app.command(name)(command)


@app.command()
def topology(
    sysfs: Annotated[
        Path | None,
        typer.Option("--sysfs", metavar="DIR", help="A tree to read instead of this host's, with cpu/ and node/."),
    ] = None,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Show processors, SMT siblings, sockets, nodes, caches, and each core's role."""
    from orchestrator.core.cpulist import format_cpulist
    from orchestrator.core.topology import describe

    host = wiring.site.load_topology(wiring.site.load_policy(policy), sysfs or wiring.site.SYSFS)
    if json:
        print_json(describe(host))
        return
    print_table(
        ("CORE", "ROLE", "SOCKET", "DIE", "CORE-ID", "NODE", "SIBLINGS", "WHY"),
        (
            (
                cpu.id,
                cpu.role,
                cpu.socket,
                cpu.die,
                cpu.core,
                cpu.node,
                format_cpulist(cpu.siblings),
                cpu.reason,
            )
            for cpu in host.cpus
        ),
    )
    for label, cores in (
        ("offline", host.offline),
        ("isolated", host.isolated),
        ("nohz_full", host.nohz_full),
    ):
        if cores:
            typer.echo(f"{label}: {format_cpulist(cores)}")
    pool = format_cpulist(host.pool) or "empty: no guest can run on this host"
    typer.echo(f"pool: {pool}")
    for warning in host.warnings:
        typer.echo(f"note: {warning}", err=True)

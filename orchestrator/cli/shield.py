"""`orchestrator host shield`, `unshield`, `status` and `kernel-args`: everything else off the cores of guests."""

from __future__ import annotations

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, PolicyFile, print_json, print_table


def shield(policy: PolicyFile = None, json: JsonFlag = False) -> None:
    """Move everything but guests and the scheduler to the service core: programs, kernel threads, interrupts, queues.

    What is changed is recorded first, and `unshield` undoes it exactly. Run it again to complete what was cut off, or
    to move what has come since.
    """
    wiring.shield.shield(wiring.site.load_policy(policy))
    _print_status(wiring.shield.status(wiring.site.load_policy(policy)), json=json)


def unshield(json: JsonFlag = False) -> None:
    """Undo all that `shield` has changed, in another process or after a crash too."""
    record = wiring.shield.unshield()
    changed = {} if record is None else wiring.shield.counted(record)
    if json:
        print_json({"undone": {kind.value: count for kind, count in changed.items()}})
    else:
        typer.echo(f"undone: {_told(changed)}" if changed else "there is no shield, and nothing to undo")


def status(policy: PolicyFile = None, json: JsonFlag = False) -> None:
    """Show whether the host is shielded, and what does not hold. Exit code 1 if a shield is not whole."""
    found = wiring.shield.status(wiring.site.load_policy(policy))
    _print_status(found, json=json)
    if found.record is not None and (found.record.phase != "shielded" or found.missing):
        raise typer.Exit(1)


def kernel_args(policy: PolicyFile = None, json: JsonFlag = False) -> None:
    """Print what the kernel is to be booted with for this host's pool: that part nobody can ask for later."""
    found = wiring.shield.kernel_arguments(wiring.site.load_policy(policy))
    if json:
        print_json(
            {"arguments": [{"argument": str(each), "purpose": each.purpose, "booted": is_so} for each, is_so in found]}
        )
    else:
        typer.echo(" ".join(str(argument) for argument, _ in found))


def _print_status(found: wiring.shield.Status, *, json: bool) -> None:
    from orchestrator.core.cpulist import format_cpulist

    if json:
        print_json(found.describe())
        return
    record = found.record
    if record is None:
        typer.echo("not shielded")
        return
    inside, rest = format_cpulist(record.division.inside), format_cpulist(record.division.rest)
    typer.echo(f"{record.phase}: cores {inside} for the scheduler and guests, {rest} for everything else")
    typer.echo(f"changed: {_told(wiring.shield.counted(record))}")
    for why in sorted(record.refused.values()):
        typer.echo(f"note: {why}", err=True)
    if found.missing:
        typer.echo("does not hold:")
        print_table(("WHAT", "WHERE", "IS"), [(each.kind, each.target, each.before) for each in found.missing])


def _told(changed: object) -> str:
    assert isinstance(changed, dict)
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in changed.items()) or "nothing"

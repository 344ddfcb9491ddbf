"""`orchestrator policy check`, `plan`, `run` and `cron`: policies brought in force, by hand or each minute."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import wiring
from orchestrator.cli.duration import parse_duration
from orchestrator.cli.options import JsonFlag, PolicyArgument, Socket, print_json, run_async
from orchestrator.errors import UsageError

SOMETHING_TO_DO = 10
"""The exit code of a plan that would change something."""


def check(file: PolicyArgument, json: JsonFlag = False) -> None:
    """Check a policy file and every definition that it names; all faults are told at once, each with its line."""
    from orchestrator.wiring import policy_check

    try:
        checked = policy_check.check(file)
    except UsageError as error:
        if not json:
            raise
        print_json({"file": str(file), "valid": False, "faults": policy_check.faults(error)})
        raise typer.Exit(error.exit_code) from None
    if json:
        print_json({"file": str(file), "valid": True, "faults": []})
        return
    windows = len(checked.policy.window)
    typer.echo(f"{file}: valid; {_counted(checked.guests, 'guest')} to keep running, {_counted(windows, 'window')}")


def plan(file: PolicyArgument, socket: Socket = None, json: JsonFlag = False) -> None:
    """Say what a run would change now, and do nothing. Exit code 10 if there is something to do."""
    from orchestrator.wiring import policy_run

    found = run_async(policy_run.plan(policy_run.ready(file), socket))
    if json:
        print_json(found)
    else:
        for line in (*_settings(found), *map(_change, found["changes"])):
            typer.echo(line)
        if not found["settings"] and not found["changes"]:
            typer.echo(f"{file}: nothing to do; {_guests(found)} as wanted")
    if found["settings"] or found["changes"]:
        raise typer.Exit(SOMETHING_TO_DO)


def run(
    file: PolicyArgument,
    limit: Annotated[str, typer.Option(metavar="TIME", help="End after this time, whatever is not done yet.")] = "5m",
    socket: Socket = None,
    json: JsonFlag = False,
) -> None:
    """Bring a policy in force and have its guests run; fine to repeat at any time. One line says what was done.

    Exit code: 0 if all is as the policy wants it; 1 if something failed; 2 if a file is not valid; 3 if another run is
    under way, or a rule refused something; 4 if this host cannot do it; 5 if the time was up first.
    """
    from orchestrator.wiring import policy_run

    seconds = parse_duration(limit)
    wanted = policy_run.ready(file)
    with _waiting(f"policy run {file}"):
        made = run_async(policy_run.run(wanted, socket, seconds, lambda note: typer.echo(note, err=True)))
    for line in _complaints(made):
        typer.echo(line, err=True)
    if json:
        print_json(made)
    else:
        typer.echo(f"policy run {file}: {_summary(made)}")
    code = _exit_code(made)
    if code:
        raise typer.Exit(code)


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Show on a terminal that something is going on; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def cron(
    file: PolicyArgument,
    install: Annotated[bool, typer.Option("--install", help="Put it into your crontab; other lines stay.")] = False,
    systemd: Annotated[
        Path | None, typer.Option("--systemd", metavar="DIR", help="Write systemd units into DIR instead.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of your crontab, or of DIR, again.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print the crontab lines that run a policy each minute; or install them, or write systemd units that do so."""
    from orchestrator.wiring import policy_check

    if install and (remove or systemd is not None):
        raise UsageError("policy cron: --install goes neither with --remove nor with --systemd; choose one")
    if not remove:
        policy_check.check(file)
    if systemd is not None:
        _units(file, systemd, remove, json)
    elif install or remove:
        _crontab(file, remove, json)
    else:
        lines = wiring.policy_cron.fragment(file)
        if json:
            print_json({"crontab": lines})
        else:
            typer.echo(lines, nl=False)


def _crontab(file: Path, remove: bool, json: bool) -> None:
    written = (wiring.policy_cron.remove if remove else wiring.policy_cron.install)(file)
    for note in written.notes:
        typer.echo(f"note: {note}", err=True)
    done = "taken out of" if remove else "in"
    if json:
        print_json({"installed": not remove, "changed": written.changed, "crontab": written.lines})
    else:
        typer.echo(f"{file}: {done} your crontab{'' if written.changed else ', as it was before'}")


def _units(file: Path, directory: Path, remove: bool, json: bool) -> None:
    import os

    paths = wiring.policy_cron.remove_units(directory) if remove else wiring.policy_cron.write_units(file, directory)
    if json:
        print_json({"units": [str(path) for path in paths], "installed": not remove})
        return
    for path in paths:
        typer.echo(f"{path}: {'removed' if remove else 'written'}")
    if not remove:
        user = "" if os.geteuid() == 0 else " --user"
        typer.echo(f"next: systemctl{user} daemon-reload && systemctl{user} enable --now {paths[-1].name}")


def _settings(found: Any) -> list[str]:
    from orchestrator.core.desired import Setting

    return [str(Setting(**each)) for each in found["settings"]]


def _change(change: Any) -> str:
    return f"{change['what']} {change['guest']} of {change['owner']}: {change['why']}"


def _complaints(made: Any) -> list[str]:
    kept = [f"{made['file']}: {line}" for line in made["kept"]]
    return kept + [each["error"] for each in made["changes"] if each["error"]]


def _summary(made: Any) -> str:
    """Say in one line what was done."""
    done = {"start": "started", "stop": "stopped", "replace": "replaced"}
    parts = [
        f"{count} {word}"
        for what, word in done.items()
        if (count := sum(each["what"] == what and not each["error"] for each in made["changes"]))
    ]
    failed = sum(bool(each["error"]) for each in made["changes"])
    parts += [f"{failed} failed"] if failed else []
    kept, values = len(made["kept"]), len(made["settings"])
    parts += [f"{_counted(values - kept, 'value')} changed"] if values > kept else []
    parts += [f"{_counted(kept, 'value')} stayed"] if kept else []
    return f"{', '.join(parts) or 'nothing to do'}; {_guests(made)} wanted"


def _exit_code(made: Any) -> int:
    """Return the code of the worst: what failed, is unknown, cannot be here, is refused."""
    codes = {3 if made["kept"] else 0, *(each["exit_code"] for each in made["changes"])}
    return next((code for code in (1, 5, 4, 3, 2) if code in codes), 0)


def _guests(found: Any) -> str:
    return _counted(found["guests"], "guest")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"

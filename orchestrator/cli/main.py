"""The program: the command tree, and errors turned into lines and exit codes.

Commands import what they need when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from orchestrator.cli import (
    admin,
    audit,
    bench,
    context,
    doctor,
    foreground,
    guard,
    guests,
    host,
    inspect,
    journal,
    lab,
    moving,
    payload,
    policy,
    remote,
    report,
    serve,
    simulate,
    top,
)
from orchestrator.errors import OrchestratorError

app = typer.Typer(
    name="orchestrator",
    help="Runs QEMU guests of four architectures on pool cores that are verifiably theirs.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing it would cost more than the rest of --help
    pretty_exceptions_enable=False,
)
for name, command in (
    ("doctor", doctor.doctor),
    ("run", foreground.run),
    ("serve", serve.serve),
    ("guard", guard.guard),
    ("start", remote.start),
    ("stop", guests.stop),
    ("pause", remote.pause),
    ("resume", remote.resume),
    ("restart", remote.restart),
    ("move", moving.move),
    ("resize", moving.resize),
    ("kill", remote.kill),
    ("rm", remote.rm),
    ("ps", guests.ps),
    ("show", remote.show),
    ("explain", remote.explain),
    ("inspect", inspect.inspect),
    ("debug", inspect.debug),
    ("cores", guests.cores),
    ("events", remote.events),
    ("report", report.report),
    ("top", top.top),
    ("logs", guests.logs),
    ("console", guests.console),
    ("xml", guests.xml),
    ("simulate", simulate.simulate),
    ("save", context.save),
    ("restore", context.restore),
    ("clone", context.clone),
    ("gc", context.gc),
):
    app.command(name)(command)
for name, group in (
    ("admin", admin.app),
    ("audit", audit.app),
    ("bench", bench.app),
    ("host", host.app),
    ("journal", journal.app),
    ("lab", lab.app),
    ("payload", payload.app),
    ("policy", policy.app),
    ("saved", context.saved),
    ("snapshot", context.snapshot),
    ("template", context.template),
):
    app.add_typer(group, name=name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"orchestrator {version('orchestrator')}")
        raise typer.Exit


@app.callback()
def _program(
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit. What a user did wrong costs one line, never a traceback; exit codes follow the family.

    `arguments` are those of the command line unless given.
    """
    try:
        app(args=arguments)
    except OrchestratorError as error:
        for line in error.lines():
            typer.echo(line, err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
        sys.exit(0)
    except Exception as error:
        if os.environ.get("ORCHESTRATOR_TRACEBACK"):
            raise
        kind = type(error).__name__
        typer.echo(f"a defect in orchestrator: {kind}: {error}; ORCHESTRATOR_TRACEBACK=1 shows where", err=True)
        sys.exit(1)

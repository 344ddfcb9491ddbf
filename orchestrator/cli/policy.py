"""`orchestrator policy`: what a policy says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import wiring
from orchestrator.cli import policy_runs
from orchestrator.cli.options import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from orchestrator.policy_file import SourcedPolicy

app = typer.Typer(no_args_is_help=True, help="Show policies, and what they plan.")

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A policy file; the built-in defaults without it.")]


@app.command()
def show(file: File = None, json: JsonFlag = False) -> None:
    """Print every value that holds by a policy, and where it was written."""
    from orchestrator.core.policy import Policy
    from orchestrator.policy_file import SourcedPolicy, effective

    sourced: SourcedPolicy = SourcedPolicy(Policy()) if file is None else wiring.site.load_sources(file)
    values = effective(sourced)
    if json:
        files = list(sourced.files)
        print_json({"files": files, "values": [value._asdict() for value in values]})
        return
    print_table(("KEY", "VALUE", "FROM"), ((value.key, _written(value.value), value.source) for value in values))


def _written(value: object) -> str:
    """Return a value as TOML writes it."""
    import json as jsonlib

    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return jsonlib.dumps(value, ensure_ascii=False)


for name, command in (
    ("check", policy_runs.check),
    ("plan", policy_runs.plan),
    ("run", policy_runs.run),
    ("cron", policy_runs.cron),
):
    app.command(name)(command)

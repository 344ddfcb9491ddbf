"""`orchestrator policy`: what a policy says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import wiring
from orchestrator.cli import policy_runs
from orchestrator.cli.options import JsonFlag, print_json, print_table, shipped_policy

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.core.policy import Policy
    from orchestrator.core.windows import Occasion
    from orchestrator.policy_file import SourcedPolicy

app = typer.Typer(no_args_is_help=True, help="Show policies, and what they plan.")

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help="A policy file, or a shipped policy's name; the built-in defaults without it.",
        callback=shipped_policy,
    ),
]


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


@app.command()
def calendar(
    file: File = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days to show.")] = 7,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="The first day, else today: 2026-12-24.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Print the windows and reservations of the next days, and what each sets."""
    from datetime import timedelta

    from orchestrator.core.policy import Policy
    from orchestrator.core.windows import calendar as occasions_of

    policy = Policy() if file is None else wiring.site.load_policy(file)
    first = _day(begin)
    occasions = occasions_of(policy, first, first + timedelta(days=days))
    if json:
        print_json([_described(policy, occasion) for occasion in occasions])
        return
    if not occasions:
        typer.echo(f"nothing is planned from {first:%a %d %b} on, for {days} days")
        return
    for number in range(days):
        day = first + timedelta(days=number)
        for line in _day_lines(
            day, [each for each in occasions if each.begin < day + timedelta(days=1) and each.end > day]
        ):
            typer.echo(line)
    for name, said in _legend(policy, occasions):
        typer.echo(f"{name}: {said}")


def _day(text: str | None) -> datetime:
    from datetime import datetime

    from orchestrator.errors import UsageError

    if text is None:
        return datetime.combine(wiring.site.today(), datetime.min.time())
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise UsageError(f"--from {text[:40]!r} is no day; write it like 2026-12-24") from None


HALF_HOURS = 48


def _day_lines(day: datetime, occasions: Sequence[Occasion]) -> Iterator[str]:
    """Yield a line for each occasion of a day, with a bar of half hours from midnight to midnight."""
    from datetime import timedelta

    head = f"{day:%a %d %b}"
    for occasion in occasions:
        begin, end = max(occasion.begin, day), min(occasion.end, day + timedelta(days=1))
        cells = [
            "#" if begin < day + timedelta(minutes=30 * cell + 30) and end > day + timedelta(minutes=30 * cell) else "."
            for cell in range(HALF_HOURS)
        ]
        until = "24:00" if end == day + timedelta(days=1) else f"{end:%H:%M}"
        yield f"{head:10}  {''.join(cells)}  {begin:%H:%M}-{until}  {occasion.kind} {occasion.name}"
        head = ""
    if not occasions:
        yield f"{head:10}  {'.' * HALF_HOURS}"


def _described(policy: Policy, occasion: Occasion) -> dict[str, object]:
    return {
        "kind": occasion.kind,
        "name": occasion.name,
        "begin": occasion.begin.isoformat(timespec="minutes"),
        "end": occasion.end.isoformat(timespec="minutes"),
        "says": _says(policy, occasion),
    }


def _legend(policy: Policy, occasions: Iterable[Occasion]) -> Iterator[tuple[str, str]]:
    for kind, name in dict.fromkeys((occasion.kind, occasion.name) for occasion in occasions):
        said = _says(policy, next(each for each in occasions if (each.kind, each.name) == (kind, name)))
        yield f"{kind} {name}", ", ".join(f"{key} = {_written(value)}" for key, value in said.items())


def _says(policy: Policy, occasion: Occasion) -> dict[str, object]:
    """Return what a window sets by dotted keys, or for whom a reservation is."""
    from orchestrator.core.windows import Kind
    from orchestrator.policy_file import SCHEMA
    from orchestrator.toml_lines import dotted
    from orchestrator.toml_tables import plain

    if occasion.kind is Kind.WINDOW:
        window = next(each for each in policy.window if each.name == occasion.name)
        return {dotted(path): plain(value, SCHEMA) for path, value in window.set} | {"change": window.change}
    reservation = next(each for each in policy.reservation if each.name == occasion.name)
    return {"owner": reservation.owner, "cores": reservation.cores, "change": reservation.change}


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

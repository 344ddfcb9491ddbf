"""`orchestrator simulate`: try a policy on a virtual clock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from orchestrator.wiring.simulate import Fairness, Incident, OwnerShare, Report

MOST_OWNERS = 20


def simulate(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file; see policies/scenarios.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="A policy file to try in place of the scenario's own policy.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw who had which core when; replaces the file.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run the scheduler's own decisions on a virtual clock, and report fairness, waits and the use of the cores.

    Exit code: 1 if a guest has waited longer than the bound that it was promised.
    """
    from orchestrator.errors import FailedError
    from orchestrator.wiring import simulate as wired

    if svg is not None:
        wired.check_svg(svg)
    story = wired.load_scenario(scenario, policy)
    with _progress(story.duration) as show:
        outcome = wired.run(story, show)
    report = outcome.report
    if svg is not None:
        wired.write_svg(outcome.chart, svg)
    if json:
        print_json(wired.describe(report))
    else:
        _print(report)
    if report.waits.beyond:
        raise FailedError(f"{scenario}: {_beyond(report)}")


@contextmanager
def _progress(duration: int) -> Iterator[Callable[[int], None] | None]:
    """Show the simulated time on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from orchestrator.core.durations import Duration, about

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=duration)
        whole = Duration(duration)
        yield lambda now: progress.update(task, completed=now, description=f"{about(now)} of {whole}")


def _print(report: Report) -> None:
    print_table((report.title.upper(), ""), _figures(report))
    if report.shares:
        typer.echo()
        _print_shares(report.shares)
    for title, incidents in (("REFUSED", report.reasons), ("FAILED", report.failures)):
        if incidents:
            typer.echo()
            _print_incidents(title, incidents)


def _figures(report: Report) -> Iterator[tuple[str, str]]:
    from orchestrator.core.durations import Duration, about

    waits, use = report.waits, report.use
    yield "time", str(Duration(report.duration))
    yield "shared guests", f"{report.guests:,} of {report.owners:,} owners"
    yield "refused", f"{report.refused:,}"
    yield "shared pool", f"{_core_seconds(use.capacity)} core seconds"
    yield "  running", f"{use.running:.1%}"
    yield "  hand-over", f"{use.handover:.1%}, {report.handovers:,} times"
    yield "  idle", f"{use.idle:.1%}"
    if report.exclusive:
        yield "exclusive guests", f"{_core_seconds(report.exclusive)} core seconds"
    if report.quarantined:
        yield "quarantine", f"{_core_seconds(report.quarantined)} core seconds"
    yield "Jain's index, guests", _index(report.among_guests)
    yield "Jain's index, owners", _index(report.among_owners)
    yield "waits", f"{waits.count:,}; {waits.open:,} go on at the end"
    parts = (("half", waits.p50), ("90 %", waits.p90), ("99 %", waits.p99), ("all", waits.longest))
    for part, most in parts:
        yield f"  {part} up to", about(most)
    if waits.worst:
        share = waits.worst.lasted / waits.worst.allowed
        bound = f"{about(waits.worst.lasted)} of {about(waits.worst.allowed)} ({share:.0%}), {waits.worst.guest}"
        yield "  worst against its bound", bound
    yield "  beyond the bound", f"{waits.beyond:,}"


def _index(fairness: Fairness) -> str:
    if fairness.index is None:
        return "-, nobody was due enough to judge"
    left_out = f"; {fairness.left_out:,} due too little to judge" if fairness.left_out else ""
    each = ", ".join(f"{index:.4f} in class {priority}" for priority, index in fairness.classes)
    classes = f"; {each}" if len(fairness.classes) > 1 else ""
    return f"{fairness.index:.4f} among {fairness.counted:,}{left_out}{classes}"


def _print_shares(shares: Sequence[OwnerShare]) -> None:
    from orchestrator.core.durations import about

    print_table(
        ("OWNER", "GUESTS", "WEIGHT", "DUE (CORE S)", "GOT (CORE S)", "RATIO", "LONGEST WAIT"),
        (
            (
                share.owner,
                share.guests,
                share.weight,
                _core_seconds(share.due),
                _core_seconds(share.got),
                "-" if share.ratio is None else f"{share.ratio:.3f}",
                about(share.longest),
            )
            for share in shares[:MOST_OWNERS]
        ),
    )
    if len(shares) > MOST_OWNERS:
        typer.echo(f"and {len(shares) - MOST_OWNERS:,} more, who got more of their due")


def _print_incidents(title: str, incidents: Iterable[Incident]) -> None:
    from orchestrator.core.durations import about

    rows = ((f"{each.times:,}", each.guest, about(each.at), each.what) for each in incidents)
    print_table((title, "FIRST", "AT", "WHY"), rows)


def _core_seconds(amount: float) -> str:
    return f"{amount / 10**9:,.1f}"


def _beyond(report: Report) -> str:
    from orchestrator.core.durations import about

    waits, worst = report.waits, report.waits.worst
    assert worst is not None  # a wait beyond its bound is the worst, or a worse one is
    longest = f"the worst is {worst.guest}'s, {about(worst.lasted)} where at most {about(worst.allowed)} were promised"
    return f"{waits.beyond:,} waits went beyond their bound: {longest}"

"""`orchestrator bench`: how fast, beside the rival where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, PolicyFile, print_json, print_table, run_async

if TYPE_CHECKING:
    from orchestrator.wiring.bench import HandoverReport, StartReport

Borrow = Annotated[
    bool, typer.Option("--borrow-service-core", help="Measure on core 1 where there is no core beside 0 and 1.")
]

app = typer.Typer(help="Measure.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    pass


@app.command()
def place(json: JsonFlag = False) -> None:
    """Measure exclusive placements per second on 64, 256 and 1,024 cores, beside OpenStack Nova's if installed."""
    report = wiring.bench.place()
    if json:
        print_json(wiring.bench.describe_place(report))
        return
    typer.echo(
        f"{report.cpu}, Python {report.python}, {f'Nova {report.nova}' if report.nova else 'Nova not installed'}"
    )
    print_table(
        ("CORES", "NODES", "GUESTS", "OURS/S", "NOVA/S", "RATIO"),
        (
            (
                rate.cores,
                rate.nodes,
                rate.guests,
                *map(_figure, (rate.ours_per_second, rate.nova_per_second, rate.ratio)),
            )
            for rate in report.rates
        ),
    )


@app.command()
def tick(json: JsonFlag = False) -> None:
    """Measure a scheduling decision, in microseconds, with up to 10,000 waiting guests, beside sorting them all."""
    report = wiring.bench.tick()
    if json:
        print_json(wiring.bench.describe_tick(report))
        return
    typer.echo(f"{report.cpu}, Python {report.python}; microseconds of CPU time for each decision")
    print_table(
        ("WAITING", "CORES", "SLICES END", "DECISIONS", "MEAN", "MEDIAN", "P99", "WORST", "RATIO"),
        (
            (
                size.waiting,
                size.cores,
                name,
                cost.decisions,
                *(f"{value:,.1f}" for value in (cost.mean, cost.median, cost.p99, cost.worst)),
                _figure(ratio),
            )
            for size in report.ticks
            for name, cost, ratio in (
                ("together", size.together, None),
                ("apart", size.apart, None),
                ("apart, by sorting", size.sorting, size.ratio),
            )
        ),
    )


@app.command()
def handover(
    borrow: Borrow = False,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Measure the hand-over of a core from guest to guest, beside bare QMP and libvirt, and the pool's useful time."""
    with _progress() as tell:
        report = run_async(wiring.bench.handover(policy, borrow=borrow, tell=tell))
    if json:
        print_json(wiring.bench.describe_handover(report))
    else:
        _print_handover(report)


@app.command()
def start(
    borrow: Borrow = False,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Measure starts to the first heartbeat: cold through libvirt, cold bare QEMU, clone, staged clone; and memory."""
    with _progress() as tell:
        report = run_async(wiring.bench.start(policy, borrow=borrow, tell=tell))
    if json:
        print_json(wiring.bench.describe_start(report))
    else:
        print_start(report)


@app.command(name="all")
def everything(
    borrow: Borrow = False,
    policy: PolicyFile = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write results.json and plots there; replaces them.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="results.json of a run to compare with.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Measure everything beside bare QEMU, libvirt and Nova, within ten minutes, and compare with another run."""
    wired = wiring.bench_all
    before = wired.load_baseline(baseline)
    with _progress() as tell:
        results = run_async(wired.measure(policy, borrow=borrow, tell=tell))
    if to is not None:
        for path in wired.write(results, to):
            typer.echo(f"written: {path}", err=True)
    if json:
        print_json(wired.to_json(results))
        return
    machine = results.machine
    typer.echo(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['qemu']} ({machine['accelerator']}), libvirt "
        f"{machine['libvirt']}; load before: {machine['load_before']}; took {results.seconds:.0f} s"
    )
    for line in results.skipped:
        typer.echo(f"note: {line}")
    if before is not None:
        typer.echo(f"compared with a run on {before.machine['cpu']}, load before: {before.machine['load_before']}")
    print_table(
        ("FIGURE", "VALUE", "UNIT", "BESIDE", "THEIRS", "RATIO", "TO BASELINE"),
        (
            (
                figure.name,
                f"{figure.value:,.4g}",
                figure.unit,
                figure.rival or "-",
                "-" if figure.theirs is None else f"{figure.theirs:,.4g}",
                "-" if figure.ratio is None else f"{figure.ratio:.3g}",
                "-" if worse is None else f"{worse:.2f}",
            )
            for figure, worse in wired.compared(results, before)
        ),
    )
    typer.echo("ratios below 1 are in our favour; to the baseline: above 1 has become worse")


@app.command()
def guard(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="So many guests are killed in each case.")] = 10,
    borrow: Borrow = False,
    json: JsonFlag = False,
) -> None:
    """Measure how long the guard takes to end a guest while this and that goes wrong, and all of it at once."""
    from dataclasses import asdict

    with _progress() as progress:
        report = wiring.guard_bench.measure(rounds, borrow=borrow, progress=progress)
    if json:
        print_json(asdict(report))
        return
    print_table(
        ("WHAT IS WRONG", "GUESTS", "MEDIAN", "WORST", "UNTIL RECORDED", "OVER 100 MS"),
        (
            (
                each.wrong,
                each.guests,
                *(f"{figure:.2f} ms" for figure in (each.median, each.worst, each.recorded)),
                each.late,
            )
            for each in report.cases
        ),
    )
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Show what is being done on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _what, _part: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, part: progress.update(task, description=what, completed=part, refresh=True)


def _print_handover(report: HandoverReport) -> None:
    machine = report.machine
    typer.echo(
        f"{machine.cpu}, Python {machine.python}, {machine.qemu} ({machine.accelerator}), libvirt {machine.libvirt}"
    )
    if report.borrowed_service_core:
        typer.echo("measured on core 1, the service core: this host has no core for guests")
    if not machine.realtime:
        typer.echo("measured without a real-time class: run it as root, or give CAP_SYS_NICE")
    cores = ",".join(map(str, report.cores))
    typer.echo(f"\nstop to running on core {cores}, in milliseconds")
    print_table(
        ("WAY", "HAND-OVERS", "MEDIAN", "P90", "P99", "TIMES BARE"),
        (
            (
                name,
                times.handovers,
                *(f"{value:.2f}" for value in (times.median, times.p90, times.p99)),
                f"{report.ratios[name]:.2f}" if name in report.ratios else "-",
            )
            for name, times in report.ways.items()
        ),
    )
    typer.echo("\nuse of the pool's time")
    print_table(
        ("SLICE", "GUESTS", "CORES", "SECONDS", "HAND-OVERS", "USEFUL", "BY THE KERNEL"),
        (
            (
                f"{use.slice_ms:g} ms",
                use.guests,
                len(use.cores),
                f"{use.seconds:.1f}",
                use.handovers,
                f"{use.useful:.2%}",
                f"{use.cpu:.2%}",
            )
            for use in report.uses
        ),
    )


def print_start(report: StartReport) -> None:
    """Print a report: what was measured on, a line for each guest, and memory."""
    machine = report.machine
    typer.echo(
        f"{machine['cpu']}, {machine['qemu']} ({machine['accelerator']}), libvirt {machine['libvirt']}; "
        "medians in milliseconds to the first heartbeat"
    )
    ways = list(report.kinds[0].ways)
    print_table(
        ("GUEST", "ROUNDS", *(way.upper() for way in ways), "CLONE/COLD", "TURN CONFIRMED"),
        (
            (
                kind.name,
                kind.rounds,
                *(f"{kind.ways[way]:.1f}" for way in ways),
                f"{kind.ratio:.2f}",
                f"{kind.turn:.1f}",
            )
            for kind in report.kinds
        ),
    )
    memory, mib = report.memory, 1024**2
    typer.echo(
        f"\nprivate memory of {memory.guests} {memory.name} guests together: cold {memory.cold / mib:.1f} MiB, "
        f"clones {memory.clones / mib:.1f} MiB ({memory.clones / memory.cold:.2f})"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"

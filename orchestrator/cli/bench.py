"""`orchestrator bench`: how fast, beside the rival where it is installed."""

from __future__ import annotations

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, print_json, print_table

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


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"

"""`orchestrator report`: who held which core when and who waited, on the terminal or as a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.duration import parse_duration
from orchestrator.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from orchestrator.wiring.report import Report

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_COLOURS = ("blue", "yellow", "cyan", "green", "magenta", "white")
_LAST = 20


def report(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far to look back, as 90s, 5m or 2d.")
    ] = "1h",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page instead; replaces the file.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show who held which core when, who waited how long, fairness, quotas and incidents, from what is written down."""
    if html is not None:
        wiring.report.check_file(html, "the page")
    made = wiring.report.make(int(parse_duration(since) * 10**9))
    if html is not None:
        wiring.report.write_file(wiring.report.page(made), html)
    if json:
        print_json(wiring.report.describe(made))
    elif html is None:
        _print(made)


def _print(made: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_summary(made))
    if made.turns:
        console.print(_gantt(made, max(20, min(120, console.width - 16))))
        console.print(_guests(made))
    if made.quotas:
        console.print(_quotas(made))
    for each in made.incidents[-_LAST:]:
        who = " ".join(filter(None, (each.guest, f"of {each.owner}" if each.owner else "")))
        console.print(f"{_clock(each.at)}  {each.what}  {who or '-'}  {each.why}".rstrip(), markup=False)
    if len(made.incidents) > _LAST:
        console.print(f"and {len(made.incidents) - _LAST} incidents before; --json has all", markup=False)


def _summary(made: Report) -> str:
    from orchestrator.core.durations import about

    lines = [f"{_clock(made.begin)} to {_clock(made.end)} UTC, {about(made.end - made.begin)}"]
    if made.longest is not None:
        said = f"{made.longest.name} waited longest: {about(made.longest.longest)}"
        lines.append(f"{said}, until {_clock(made.longest.longest_at)}")
        lines.append(f"nearest to its bound: {max(guest.nearest for guest in made.guests):.0%}")
    if made.fairness is not None:
        lines.append(f"fairness (Jain's index): {made.fairness:.3f}")
    if made.lost or made.unread:
        lines.append(f"{made.lost} records could not be kept, {made.unread} could not be read")
    return "\n".join(lines)


def _gantt(made: Report, width: int) -> Text:
    """Return a lane for each core; each column is the letter of who had it longest then, small dots are nobody."""
    from rich.text import Text

    names = sorted(guest.name for guest in made.guests)
    places = {name: place for place, name in enumerate(names)}
    shares = list(_columns(made, width))
    picture = Text()
    for core in (line.core for line in made.cores):
        picture.append(f"core {core:<4} ")
        for column in shares:
            held = column.get(core)
            if held is None:
                picture.append("·", style="dim")
            else:
                guest = max(sorted(held), key=lambda name: held[name])
                place = places[guest]
                picture.append(_LETTERS[place % len(_LETTERS)], style=_COLOURS[place % len(_COLOURS)])
        picture.append("\n")
    return picture


def _columns(made: Report, width: int) -> Iterator[dict[int, dict[str, int]]]:
    """Yield for each column, by core, for how long each guest had it."""
    found: list[dict[int, dict[str, int]]] = [{} for _ in range(width)]
    length = max(1, (made.end - made.begin) // width)
    for turn in made.turns:
        first = min(width - 1, (turn.begin - made.begin) // length)
        for place in range(first, min(width, (turn.end - made.begin) // length + 1)):
            start = made.begin + place * length
            lasted = min(turn.end, start + length) - max(turn.begin, start)
            for core in turn.cores if lasted > 0 else ():
                cell = found[place].setdefault(core, {})
                cell[turn.guest] = cell.get(turn.guest, 0) + lasted
    return iter(found)


def _guests(made: Report) -> Table:
    from rich.table import Table

    from orchestrator.core.durations import about

    names = sorted(guest.name for guest in made.guests)
    table = Table(box=None, pad_edge=False)
    for column in ("", "GUEST", "OWNER", "TURNS", "CORE TIME", "OF DUE", "MEAN WAIT", "LONGEST", "OF BOUND"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for guest in made.guests:
        table.add_row(
            _LETTERS[names.index(guest.name) % len(_LETTERS)],
            guest.name,
            guest.owner or "-",
            f"{guest.turns:,}",
            about(guest.ran),
            f"{guest.ran / guest.due:.0%}" if guest.due and guest.shared else "-",
            about(guest.mean) if guest.waits else "-",
            about(guest.longest) if guest.waits else "-",
            f"{guest.nearest:.0%}" if guest.waits else "-",
        )
    return table


def _quotas(made: Report) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("WHOSE", "RULE", "USED", "LIMIT", "PART"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for each in made.quotas:
        part = f"{each.used / each.limit:.0%}" if each.limit else "-"
        table.add_row(each.party, each.rule, _amount(each.used, each.unit), _amount(each.limit, each.unit), part)
    return table


def _amount(value: int, unit: str) -> str:
    from orchestrator.core.durations import about
    from orchestrator.core.model import Size

    if unit == "bytes":
        return str(Size(value))
    return about(value) if unit == "core-nanoseconds" else str(value)


def _clock(nanoseconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(nanoseconds / 10**9, UTC).strftime("%H:%M:%S.%f")[:-3]

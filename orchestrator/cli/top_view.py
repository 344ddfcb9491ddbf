"""What `top` shows, as lines: never wider than the terminal, and all that colour says is said by a letter too."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.text import Text

from orchestrator.cli.top_keys import Mode, Row, State, chosen

HELP = (
    "s S    sort by the next column, by the one before        r  reverse",
    "/      filter by name, owner, architecture or state; Enter keeps it, Escape clears it",
    "j k    the next guest, the one before (arrows too)",
    "p      pause the guest, or resume it if it is paused",
    "e      explain why it waits or where it runs",
    "q      quit",
    "",
    "WANT   cores that a guest is due now by its weight; GOT: what it had of late on the average",
    "WAIT   for how long it has waited; BOUND: the part of its bound that its worst wait took",
    "CPU    by the kernel; TURNS: hand-overs to it; F: faults",
)


def lines(
    overview: Row, loads: Mapping[int, float], state: State, width: int, height: int, *, stale: bool = False
) -> list[Text]:
    """Return the screen, `height` lines of at most `width` columns; `loads` are the parts of cores' time in use."""
    if state.mode in (Mode.HELP, Mode.EXPLAIN):
        inside = HELP if state.mode is Mode.HELP else state.reason
        shown = [_head(overview, state, width, stale=stale), Text(""), *_wrapped(inside, width)]
        return _screen([*shown, Text(""), Text("any key goes back", style="dim")], width, height)
    users = list(_users(overview, width))
    cores = list(_cores(overview, loads, width))[: max(1, height // 4)]
    room = height - len(cores) - min(len(users), max(2, height // 5)) - 4
    guests = list(_guests(overview, state, width, max(1, room)))
    foot = _foot(state)
    body = [_head(overview, state, width, stale=stale), *cores, Text(""), *guests]
    below = users[: max(0, height - len(body) - 2)]
    return [*_screen([*body, *([Text(""), *below] if below else [])], width, height - 1), _cut(foot, width)]


def _head(overview: Row, state: State, width: int, *, stale: bool) -> Text:
    held = sum(core["held"] for core in overview["cores"])
    pool = sum(core["role"] == "pool" for core in overview["cores"])
    fairness = "" if overview["fairness"] is None else f"  fairness {overview['fairness']:.2f}"
    left = f"top  {held} of {pool} cores held{fairness}  {len(overview['guests'])} guests"
    right = "OLD: the daemon does not answer" if stale else state.said
    return _cut(Text(f"{left}  {right}" if right else left, style="bold"), width)


def _cores(overview: Row, loads: Mapping[int, float], width: int) -> Iterator[Text]:
    cells = []
    for core in overview["cores"]:
        holder = core["holder"] or ("(other)" if core["held"] else "-" if core["role"] == "pool" else core["role"])
        load = f"{loads[core['id']]:>4.0%}" if core["id"] in loads else "   -"
        since = _span(core["since"]) if core["since"] is not None else ""
        cells.append(f"{core['id']:>3} {_fit(holder, 11)} {since:>5}{load}")
    across = max(1, (width + 2) // 27)
    for first in range(0, len(cells), across):
        yield Text("  ".join(cells[first : first + across]))


class _Column(NamedTuple):
    title: str
    width: int
    text: Callable[[Row], str]
    sort: str = ""


def _guests(overview: Row, state: State, width: int, room: int) -> Iterator[Text]:
    guests = chosen(overview, state)
    columns = _columns(max(12, min(40, 12 + width - 80)))
    head = Text(" ")
    for column in columns:
        marked = f"{column.title}*" if column.sort == state.sort else column.title
        head.append(f" {_set(marked, column)}", style="bold")
    yield head
    first = max(0, min(state.row - room // 2, len(guests) - room + 1))
    for guest in guests[first : first + max(1, room - 1)]:
        here = guest["name"] == state.selected
        line = Text(">" if here else " ", style="reverse" if here else _STYLES.get(guest["state"], ""))
        for column in columns:
            line.append(f" {_set(column.text(guest), column)}")
        yield line
    if not guests:
        yield Text("  no guest fits the filter" if state.filter else "  no guests")


def _columns(name: int) -> Sequence[_Column]:
    return (
        _Column("GUEST", -name, lambda guest: guest["name"], "name"),
        _Column("OWNER", -6, lambda guest: guest["owner"], "owner"),
        _Column("ARCH", -7, lambda guest: guest["architecture"]),
        _Column("STATE", -7, lambda guest: guest["state"], "state"),
        _Column("CORES", -5, lambda guest: ",".join(map(str, guest["cores"])) or "-"),
        _Column("WANT", 4, lambda guest: f"{guest['wanted']:.2f}"),
        _Column("GOT", 4, lambda guest: "-" if guest["got"] is None else f"{guest['got']:.2f}", "got"),
        _Column("WAIT", 5, lambda guest: "-" if guest["waiting"] is None else _span(guest["waiting"]), "wait"),
        _Column("BOUND", 5, lambda guest: f"{guest['nearest']:.0%}" if guest["waits"] else "-", "longest"),
        _Column("CPU", 5, lambda guest: _span(guest["cpu_seconds"]), "cpu"),
        _Column("TURNS", 5, lambda guest: _count(guest["turns"]), "turns"),
        _Column("F", 2, lambda guest: _count(guest["faults"]), "faults"),
    )


_STYLES = {"running": "green", "paused": "yellow", "quarantined": "red", "failed": "red", "crashed-kept": "red"}


def _users(overview: Row, width: int) -> Iterator[Text]:
    yield Text(_cut_text("  USER     GUESTS  RUN  KEPT   MEMORY    TODAY  NEAREST TO ITS LIMIT", width), style="bold")
    for user in overview["users"]:
        quotas = [each for each in overview["quotas"] if each["party"] == user["user"] and each["limit"]]
        nearest = max(quotas, key=lambda each: each["used"] / each["limit"], default=None)
        said = "no limit" if nearest is None else f"{nearest['rule']} {nearest['used'] / nearest['limit']:.0%}"
        memory, today = f"{user['memory'] / 2**20:.0f}M", _span(user["core_seconds_today"])
        counts = f"{user['guests']:>6} {user['running']:>4} {user['exclusive_cores']:>5}"
        yield _cut(Text(f"  {_fit(user['user'], 8)} {counts} {memory:>8} {today:>8}  {said}"), width)


def _foot(state: State) -> Text:
    if state.mode is Mode.FILTER:
        return Text(f"filter: {state.filter}_")
    kept = f"  filter: {state.filter}" if state.filter else ""
    order = f"by {state.sort}{' reversed' if state.reverse else ''}"
    return Text(f"q quit  s sort ({order})  / filter  p pause  e explain  ? help{kept}", style="dim")


def _wrapped(inside: Sequence[str], width: int) -> Iterator[Text]:
    for each in inside:
        for line in textwrap.wrap(each, width, subsequent_indent="  ") or [""]:
            yield Text(line)


def _screen(shown: Sequence[Text], width: int, height: int) -> list[Text]:
    cut = [_cut(line, width) for line in shown[:height]]
    return cut + [Text("")] * (height - len(cut))


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _cut_text(text: str, width: int) -> str:
    return text[:width]


def _set(text: str, column: _Column) -> str:
    """Return a text as wide as its column: to the left where the width is negative."""
    wide = abs(column.width)
    cut = _fit(text, wide)
    return cut if column.width < 0 else f"{text:>{wide}}"[:wide]


def _fit(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else f"{text[: width - 1]}~"


def _count(count: int) -> str:
    return str(count) if count < 100_000 else f"{count // 1000}k"


def _span(seconds: float) -> str:
    """Return a length of time in five columns at most."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    for size, unit in ((1, "s"), (60, "m"), (3600, "h"), (86_400, "d")):
        count = seconds / size
        if count < 99.5:
            return f"{count:.1f}{unit}" if count < 9.95 else f"{count:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"

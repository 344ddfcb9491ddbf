"""What the keys of `top` mean, as values: an overview and a state go in, a new state comes out, and what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

Row = Mapping[str, Any]
"""A guest, a core or a user as the API tells of it."""


class Mode(StrEnum):
    """What keys are for: the table, typing a filter, or closing what lies over the table."""

    TABLE = "table"
    FILTER = "filter"
    EXPLAIN = "explain"
    HELP = "help"


class Ask(NamedTuple):
    """What a key wants of the daemon: ``pause``, ``resume`` or ``explain`` a guest; or ``quit``."""

    what: str
    guest: str = ""


SORTS: dict[str, Callable[[Row], Any]] = {
    "name": lambda guest: guest["name"],
    "owner": lambda guest: guest["owner"],
    "state": lambda guest: guest["state"],
    "got": lambda guest: -(guest["got"] or 0),
    "wait": lambda guest: -(guest["waiting"] or 0),
    "longest": lambda guest: -guest["longest_seconds"],
    "cpu": lambda guest: -guest["cpu_seconds"],
    "turns": lambda guest: -guest["turns"],
    "faults": lambda guest: -guest["faults"],
}
"""What guests can be sorted by, and how; the largest figures come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where the user is. `selected` is a guest's name, `row` where it was seen last; `reason` lies over the table."""

    sort: str = "name"
    reverse: bool = False
    filter: str = ""
    selected: str = ""
    row: int = 0
    mode: Mode = Mode.TABLE
    reason: tuple[str, ...] = ()
    said: str = ""


def chosen(overview: Row, state: State) -> list[Row]:
    """Return the guests that are shown, in order."""
    wanted = state.filter.lower()
    guests = [guest for guest in overview["guests"] if any(wanted in guest[key].lower() for key in _SEARCHED)]
    guests.sort(key=lambda guest: guest["name"])
    guests.sort(key=SORTS[state.sort], reverse=state.reverse)
    return guests


def settle(overview: Row, state: State) -> State:
    """Return the state with a guest selected that is there: the same one, else who has come to its place."""
    names = [guest["name"] for guest in chosen(overview, state)]
    if state.selected in names:
        return replace(state, row=names.index(state.selected))
    if not names:
        return replace(state, selected="", row=0)
    row = min(state.row, len(names) - 1)
    known = {guest["name"] for guest in overview["guests"]}
    gone = state.selected and state.selected not in known
    return replace(state, selected=names[row], row=row, said=f"{state.selected} is gone" if gone else state.said)


def press(overview: Row, state: State, key: str) -> tuple[State, Ask | None]:
    """Return what a key makes of the state, and what it wants."""
    if key == "ctrl-c":
        return state, Ask("quit")
    match state.mode:
        case Mode.FILTER:
            return settle(overview, _typed(state, key)), None
        case Mode.TABLE:
            state = replace(state, said="")
            return _moved(overview, state, key), _ask(overview, state, key)
        case _:
            return replace(state, mode=Mode.TABLE, reason=()), None


def _moved(overview: Row, state: State, key: str) -> State:
    """Return what a key of the table makes of the state."""
    if key in _MOVES:
        guests = chosen(overview, state)
        row = max(0, min(len(guests) - 1, state.row + _MOVES[key]))
        return replace(state, selected=guests[row]["name"], row=row) if guests else state
    if key in ("s", "S"):
        names = list(SORTS)
        state = replace(state, sort=names[(names.index(state.sort) + (1 if key == "s" else -1)) % len(names)])
    elif key == "r":
        state = replace(state, reverse=not state.reverse)
    elif key == "/":
        state = replace(state, mode=Mode.FILTER)
    elif key == "escape":
        state = replace(state, filter="")
    elif key == "?":
        state = replace(state, mode=Mode.HELP)
    return settle(overview, state)


def _ask(overview: Row, state: State, key: str) -> Ask | None:
    if key == "q":
        return Ask("quit")
    guest = next((guest for guest in overview["guests"] if guest["name"] == state.selected), None)
    if guest is None:
        return None
    if key == "p":
        return Ask("resume" if guest["state"] == "paused" else "pause", state.selected)
    return Ask("explain", state.selected) if key in ("e", "enter") else None


def _typed(state: State, key: str) -> State:
    if key == "enter":
        return replace(state, mode=Mode.TABLE)
    if key == "escape":
        return replace(state, mode=Mode.TABLE, filter="")
    if key == "backspace":
        return replace(state, filter=state.filter[:-1])
    return replace(state, filter=state.filter + key) if len(key) == 1 and key.isprintable() else state


_SEARCHED = ("name", "owner", "architecture", "state", "mode")
_MOVES = {"j": 1, "down": 1, "k": -1, "up": -1}

"""`top`: what keys mean and what is drawn, on any terminal, whoever dies meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.top_keys import SORTS, Ask, Mode, State, chosen, press, settle
from orchestrator.cli.top_screen import keys
from orchestrator.cli.top_view import lines
from orchestrator.host.cpu_times import read_cpu_times
from tests.unit.service_daemon import ALICE, BOB, Daemon, daemon_on, definition, run


def guest(name: str, **figures: Any) -> dict[str, Any]:
    return {
        "name": name,
        "owner": "alice",
        "architecture": "x86_64",
        "mode": "shared",
        "state": "waiting",
        "cores": [],
        "wanted": 0.5,
        "got": 0.5,
        "waiting": 0.2,
        "cpu_seconds": 10.0,
        "turns": 5,
        "waits": 5,
        "nearest": 0.3,
        "longest_seconds": 1.0,
        "faults": 0,
        **figures,
    }


def overview(*guests: dict[str, Any]) -> dict[str, Any]:
    cores = [
        {"id": core, "role": role, "node": 0, "holder": holder, "held": holder is not None, "since": since}
        for core, role, holder, since in (
            (0, "scheduler", None, None),
            (1, "service", None, None),
            (2, "pool", "b", 3.0),
        )
    ]
    user = {"user": "alice", "guests": 3, "running": 3, "exclusive_cores": 0, "memory": 2**28, "core_seconds_today": 90}
    quota = {"party": "alice", "rule": "guests", "used": 3, "limit": 4, "unit": "count"}
    return {"cores": cores, "guests": guests, "users": [user], "quotas": [quota], "fairness": 0.987}


THREE = overview(
    guest("a", waiting=1.0), guest("b", state="running", waiting=None, owner="bob"), guest("c", waiting=9.0)
)


def typed(seen: dict[str, Any], state: State, *pressed: str) -> State:
    for key in pressed:
        state, _ = press(seen, state, key)
    return state


def names(seen: dict[str, Any], state: State) -> list[str]:
    return [each["name"] for each in chosen(seen, state)]


def test_sorting_goes_round_and_can_be_reversed() -> None:
    state = settle(THREE, State())
    assert names(THREE, state) == ["a", "b", "c"]
    by_wait = typed(THREE, state, *["s"] * list(SORTS).index("wait"))
    assert (by_wait.sort, names(THREE, by_wait)) == ("wait", ["c", "a", "b"])
    assert names(THREE, typed(THREE, by_wait, "r")) == ["b", "a", "c"]
    assert typed(THREE, state, *["s"] * len(SORTS)).sort == typed(THREE, state, "s", "S").sort == "name"


def test_a_filter_is_typed_kept_and_cleared() -> None:
    state = typed(THREE, settle(THREE, State()), "/", "b", "o", "x", "backspace", "enter")
    assert (state.filter, state.mode, names(THREE, state), state.selected) == ("bo", Mode.TABLE, ["b"], "b")
    cleared = typed(THREE, state, "escape")
    assert (names(THREE, cleared), cleared.selected) == (["a", "b", "c"], "b")


def test_who_is_selected_stays_so_when_the_order_changes_and_gives_way_when_it_dies() -> None:
    state = typed(THREE, settle(THREE, State()), "j", "r")
    assert (state.selected, state.row) == ("b", 1)
    fewer = overview(*(each for each in THREE["guests"] if each["name"] != "b"))
    after = settle(fewer, state)
    assert (after.selected, after.said) == ("a", "b is gone")
    assert settle(overview(), after).selected == ""
    assert press(overview(), settle(overview(), after), "p") == (settle(overview(), replaced(after)), None)


def replaced(state: State) -> State:
    return typed(overview(), state, "k")  # a key clears what was said


def test_keys_ask_for_what_they_say() -> None:
    state = settle(THREE, State())
    assert press(THREE, state, "p")[1] == Ask("pause", "a")
    paused = overview(guest("a", state="paused"))
    assert press(paused, state, "p")[1] == Ask("resume", "a")
    assert press(THREE, state, "e")[1] == Ask("explain", "a")
    assert press(THREE, state, "q")[1] == press(THREE, typed(THREE, state, "/"), "ctrl-c")[1] == Ask("quit")
    assert press(THREE, typed(THREE, state, "?"), "q") == (state, None), "any key goes back"
    assert typed(THREE, state, "/", "q").filter == "q"


KEYS = st.lists(st.sampled_from([*"sSrjkpe/?xq", "enter", "escape", "backspace", "up", "down"]), max_size=12)


@settings(deadline=None, max_examples=60)
@given(KEYS, st.integers(0, 3), st.integers(1, 200), st.integers(1, 60), st.booleans())
def test_whatever_is_pressed_the_screen_has_its_size_and_the_selected_guest_is_seen(
    pressed: list[str], there: int, width: int, height: int, stale: bool
) -> None:
    seen = overview(*THREE["guests"][:there])
    state = typed(seen, settle(seen, State()), *pressed)
    shown = lines(seen, {2: 0.5}, state, width, height, stale=stale)
    assert len(shown) == height
    assert all(line.cell_len <= width and "\n" not in line.plain for line in shown)
    assert state.selected in ("", *names(seen, state))


def test_eighty_columns_show_all_figures() -> None:
    many = overview(*(guest(f"guest-{number:03}") for number in range(100)))
    state = typed(many, settle(many, State()), *["j"] * 50)
    shown = [line.plain for line in lines(many, {0: 0.01, 2: 0.93}, state, 80, 24)]
    assert shown[0].startswith("top  1 of 1 cores held  fairness 0.99  100 guests")
    assert "2 b            3.0s 93%" in shown[1]
    assert " ".join(shown[3].split()) == "GUEST* OWNER ARCH STATE CORES WANT GOT WAIT BOUND CPU TURNS F"
    (row,) = [line for line in shown if line.startswith(">")]
    assert " ".join(row.split()) == "> guest-050 alice x86_64 waiting - 0.50 0.50 200ms 30% 10s 5 0"
    assert any("guests 75%" in line for line in shown), "the user's quota that is nearest to its limit"
    assert "q quit" in shown[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sq", ["s", "q"]),
        ("\x1b[A\x1b[Bj", ["up", "down", "j"]),
        ("\x1b", ["escape"]),
        ("\r\x7f", ["enter", "backspace"]),
    ],
)
def test_keys_are_known_by_what_terminals_send(text: str, told: list[str]) -> None:
    assert list(keys(text)) == told


def test_a_load_is_the_part_of_the_time_that_was_not_idle(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 1 1 1 1\ncpu0 10 0 10 80 0 0 0 0 5 0\ncpu2 0 0 0 100 0 0 0 0 0 0\nintr 1\n")
    before = read_cpu_times(tmp_path)
    stat.write_text("cpu 1 1 1 1\ncpu0 40 0 10 140 10 0 0 0 5 0\ncpu2 0 0 0 100 0 0 0 0 0 0\nintr 1\n")
    now = read_cpu_times(tmp_path)
    assert {core: times.load_since(before[core]) for core, times in now.items()} == {0: 0.3, 2: 0.0}


def test_everybody_is_shown_his_own_guests_and_that_others_have_cores(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition("web"))
            daemon.caller = BOB
            await daemon.start(definition("db", "shared"), definition("job", "shared"))
            seen = await daemon.client.overview()
            assert [each["name"] for each in seen["guests"]] == ["db", "job"]
            assert [user["user"] for user in seen["users"]] == [BOB.user]
            held = {core["id"]: core["holder"] for core in seen["cores"] if core["held"]}
            assert held[2] is None
            assert set(held.values()) == {None, "db", "job"}
            figures = {each["name"]: each for each in seen["guests"]}
            assert (figures["db"]["wanted"], figures["db"]["turns"], figures["db"]["got"]) == (1.0, 1, None)
            await _shows_what_was_got(daemon)

    run(story)


async def _shows_what_was_got(daemon: Daemon) -> None:
    daemon.overview.mark()
    await daemon.host.clock.sleep(10)
    seen = await daemon.client.overview()
    figures = {each["name"]: each for each in seen["guests"]}
    assert (figures["db"]["got"], figures["db"]["due"], seen["fairness"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("width", [1, 2, 3, 20, 79])
def test_a_reason_is_wrapped_however_long_its_words_are(width: int) -> None:
    state = replace(State(), mode=Mode.EXPLAIN, reason=(f"it waits for {'x' * 200}", "", "soon"))
    shown = [line.plain for line in lines(THREE, {}, state, width, 400)]
    assert "".join("".join(shown[2:]).split()).startswith(f"itwaitsfor{'x' * 200}soon" if width > 2 else "i")
    assert all(len(line) <= width for line in shown)

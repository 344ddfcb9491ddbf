"""The chart: what is recorded of it, and that its picture needs nothing else and survives any name."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from orchestrator.core.charts import ticks
from orchestrator.simulator.drawing import draw
from orchestrator.simulator.gantt import MOST_BARS, MOST_BARS_A_ROW, MOST_CORES, Bar, BarKind, Chart

MS, S = 10**6, 10**9
TURN, EXCLUSIVE, HANDOVER, QUARANTINE = BarKind.TURN, BarKind.EXCLUSIVE, BarKind.HANDOVER, BarKind.QUARANTINE


def chart(cores: int = 4, end: int = 10 * S, title: str = "a test") -> Chart:
    return Chart(title, range(2, 2 + cores), end)


def take_turns(chart: Chart, core: int, count: int, length: int = 10 * MS) -> None:
    for number in range(count):
        chart.bar("g", "o", (core,), number * length, (number + 1) * length, TURN)


def test_cores_side_by_side_are_one_bar() -> None:
    drawn = Chart("a test", [2, 3, 4, 9, 10], 10 * S)
    drawn.bar("g", "o", (2, 3, 9, 10), 0, S, TURN)
    assert list(drawn.bars()) == [Bar(TURN, "g", "o", 0, 2, 0, S), Bar(TURN, "g", "o", 3, 2, 0, S)]
    drawn.bar("h", "o", (4, 3), S, 2 * S, TURN)
    assert list(drawn.bars())[2:] == [Bar(TURN, "h", "o", 1, 2, S, 2 * S)]


def test_cores_beyond_the_first_are_not_charted() -> None:
    drawn = chart(cores=1000)
    assert drawn.cores == tuple(range(2, 2 + MOST_CORES))
    drawn.bar("g", "o", (65, 66), 0, S, TURN)
    drawn.bar("h", "o", (66, 67), 0, S, TURN)
    assert list(drawn.bars()) == [Bar(TURN, "g", "o", MOST_CORES - 1, 1, 0, S)]
    assert "0 s to 10 s; cores 2-65 of 1,000 in the pool" in draw(drawn).decode()


def test_a_chart_ends_when_no_more_can_be_seen_and_misses_nothing_before() -> None:
    drawn = chart(cores=2)
    take_turns(drawn, 2, 2 * MOST_BARS_A_ROW - 1)
    assert drawn.end == 10 * S
    take_turns(drawn, 2, 2 * MOST_BARS_A_ROW + 5)
    stop = drawn.end
    assert stop == 10 * MS
    full = [drawn.full]  # nobody has told yet what was on core 3
    drawn.bar("late", "o", (3,), 0, 5 * S, EXCLUSIVE)
    assert [*full, drawn.full] == [False, True]
    assert list(drawn.bars())[-1] == Bar(EXCLUSIVE, "late", "o", 1, 1, 0, stop)
    drawn.bar("after", "o", (3,), stop, 6 * S, TURN)
    assert all(bar.guest != "after" for bar in drawn.bars())


def test_a_hand_over_that_is_told_early_does_not_hide_the_turn_before_it() -> None:
    drawn = chart(cores=1, end=S)
    drawn.bar("next", "o", (2,), 900 * MS, S + 1, HANDOVER)
    full = [drawn.full]
    drawn.bar("first", "o", (2,), 0, 900 * MS, TURN)
    drawn.bar("next", "o", (2,), 910 * MS, S, TURN)
    assert [*full, drawn.full] == [False, True]
    assert [bar.guest for bar in drawn.bars()] == ["next", "first", "next"]
    assert max(bar.end for bar in drawn.bars()) == S


def test_a_picture_has_a_limited_number_of_bars_however_many_cores_there_are() -> None:
    drawn = chart(cores=64, end=3600 * S)
    for number in range(2 * MOST_BARS):
        drawn.bar("g", "o", (2 + number % 64,), number * MS, (number + 1) * MS, TURN)
    assert MOST_BARS <= len(list(drawn.bars())) <= MOST_BARS + 64


def picture(drawn: Chart) -> Any:
    return etree.fromstring(draw(drawn))


def rects(svg: Any, kind: str) -> list[Any]:
    return list(svg.iterfind(f".//{{*}}g[@class='{kind}']//{{*}}rect"))


def test_bars_are_where_their_time_and_their_cores_are() -> None:
    drawn = chart()
    drawn.bar("g", "ann", (3, 4), 5 * S, 10 * S, TURN)
    drawn.bar("server", "ann", (2,), 0, 10 * S, EXCLUSIVE)
    drawn.bar("g", "ann", (3, 4), 5 * S - 1000, 5 * S, HANDOVER)
    drawn.bar("bad", "ben", (5,), 0, 5 * S, QUARANTINE)
    svg = picture(drawn)
    ((turn,), (server,), (handover,), (quarantine,)) = (
        rects(svg, kind) for kind in ("turn", "exclusive", "handover", "quarantine")
    )
    for half in (turn, quarantine):
        assert float(half.get("width")) == float(server.get("width")) / 2
    assert float(turn.get("x")) == float(quarantine.get("x")) + float(quarantine.get("width"))
    assert float(turn.get("height")) == 2 * float(server.get("height")) + 2
    assert float(handover.get("width")) == 0.4, "what is short is still seen"
    assert turn.getparent().get("fill") == server.getparent().get("fill") == "#0072b2"
    assert turn[0].text == "g (ann), turn\ncores 3-4\n5.000000 s to 10.000000 s (5 s)"
    told = [text.text for text in svg.iterfind("{*}text")]
    assert {"a test", "0 s to 10 s; cores 2-5", "ann", "hand-over", "quarantined cores"} <= set(told)


def test_a_chart_that_stops_early_says_so() -> None:
    drawn = chart(cores=1, end=600 * S)
    take_turns(drawn, 2, MOST_BARS_A_ROW, length=100 * MS)
    assert "0 s to 12 s of 10 min; core" in draw(drawn).decode()


def test_no_name_breaks_the_picture_and_nothing_in_it_runs_or_is_fetched() -> None:
    nasty = "<script>alert('&')</script>]]>\"é"
    drawn = chart(title=nasty)
    drawn.bar(nasty, nasty, (2,), 0, S, TURN)
    text = draw(drawn).decode()
    assert "<script" not in text
    assert text.count("http") == 1, "the name of the SVG namespace alone"
    svg = etree.fromstring(text.encode())
    assert svg.get("aria-label") == nasty
    assert nasty in svg.findtext(".//{*}g/{*}rect/{*}title")


def test_more_owners_than_colours_are_told_apart_by_patterns_and_the_rest_are_counted() -> None:
    drawn = chart(cores=1, end=1000 * S)
    for number in range(35):
        drawn.bar(f"g-{number}", f"o-{number}", (2,), number * S, (number + 1) * S, TURN)
    svg = picture(drawn)
    fills = [group.get("fill") for group in svg.iterfind(".//{*}g[@class='turn']/{*}g")]
    assert len(set(fills)) == 30
    assert fills[30:] == fills[:5]
    used = {fill[5:-1] for fill in fills if fill.startswith("url(")}
    assert used < {pattern.get("id") for pattern in svg.iterfind(".//{*}pattern")}
    assert "and 5 more owners" in [text.text for text in svg.iterfind("{*}text")]


def test_an_empty_chart_is_a_picture_too() -> None:
    assert rects(picture(chart()), "turn") == []
    assert picture(Chart("no pool", [], 1)).tag.endswith("svg")


@pytest.mark.parametrize(
    ("end", "texts"),
    [
        (10 * S, ["0 s", "1 s", "2 s", "3 s", "4 s", "5 s", "6 s", "7 s", "8 s", "9 s", "10 s"]),
        (4 * S, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s", "2.5 s", "3 s", "3.5 s", "4 s"]),
        (95 * S, ["0 s", "10 s", "20 s", "30 s", "40 s", "50 s", "60 s", "70 s", "80 s", "90 s"]),
        (700 * S, ["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (250 * MS, ["0 ms", "50 ms", "100 ms", "150 ms", "200 ms", "250 ms"]),
        (3, ["0 ns", "1 ns", "2 ns", "3 ns"]),
        (25 * 86_400 * S, ["0 d", "3 d", "6 d", "9 d", "12 d", "15 d", "18 d", "21 d", "24 d"]),
    ],
)
def test_ticks_are_round(end: int, texts: list[str]) -> None:
    assert [text for _, text in ticks(end)] == texts


@pytest.mark.parametrize("end", [1, 7, 999, 12_345, 10**9 + 1, 61 * 10**9, 86_400 * 10**9, 10**17])
def test_there_are_never_more_ticks_than_can_be_read(end: int) -> None:
    found = list(ticks(end))
    assert 2 <= len(found) <= 11
    assert found[-1][0] <= end

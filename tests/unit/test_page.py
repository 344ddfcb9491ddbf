"""The page of a report: whole, for itself alone, and proof against any text that guests and users bring."""

from __future__ import annotations

import re
from dataclasses import replace

from lxml import html

from orchestrator.core.chronicle import Incident
from orchestrator.page.document import render
from orchestrator.page.gantt import MOST_BARS, Lanes
from orchestrator.page.words import LOOKS
from tests.unit.report_records import START, S
from tests.unit.test_report import END, report

NASTY = "</script><script>alert(1)</script>\"'&<img src=http://x/>"


def test_it_says_who_held_which_core_and_who_waited_longest() -> None:
    made = report()
    page = html.fromstring(render(made, "lab"))
    assert made.longest is not None
    tile = page.xpath("//div[@class='tiles']/div")[0].text_content()
    assert f"{made.longest.name} waited longest" in tile
    rows = page.xpath("//section[@id='guests']//tbody/tr")
    assert [row[0].text_content() for row in rows] == [line.name for line in made.guests]
    bars = page.xpath("//svg[contains(@class, 'gantt')]//rect/title/text()")
    assert len(bars) == sum(len(turn.cores) for turn in made.turns)
    assert bars[0].startswith("guest-01 (alice), exclusive\ncore 2\n")
    assert len(page.xpath("//ul[@class='legend']//button")) == len(made.guests)


def test_it_needs_nothing_from_elsewhere() -> None:
    text = render(report(), "lab")
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|\bsrc=|url\((?!#)|@import|<link", text)
    for look in range(LOOKS):
        assert f".l{look}{{" in text


def test_no_text_leaves_its_place() -> None:
    made = report()
    guests = tuple(replace(line, owner=NASTY, architecture=NASTY) for line in made.guests)
    turns = tuple(turn._replace(owner=NASTY) for turn in made.turns)
    incidents = (Incident(START, NASTY, NASTY, NASTY, NASTY, "log"),)
    page = html.fromstring(render(replace(made, guests=guests, turns=turns, incidents=incidents), NASTY))
    assert (len(page.xpath("//script")), len(page.xpath("//img"))) == (1, 0)
    assert page.xpath("//section[@id='incidents']//td/text()")[1] == NASTY


def test_an_empty_report_is_a_page_too() -> None:
    empty = replace(report(), turns=(), guests=(), cores=(), quotas=(), incidents=(), fairness=None)
    assert "Nobody held a core." in render(empty, "lab")


def test_more_turns_than_can_be_seen_become_columns_that_are_no_more_than_can_be() -> None:
    made = report()
    looks = {line.name: place for place, line in enumerate(made.guests)}
    drawn = html.fromstring(Lanes([2, 3, 4, 5], START, END, looks).columns(made.turns, "x"))
    bars = drawn.xpath("//g/rect")
    assert 0 < len(bars) <= MOST_BARS
    tall = sum(float(bar.get("height")) for bar in bars) / (28 * 4 * 240)
    assert abs(tall - sum(line.held for line in made.cores) / 4) < 0.02
    assert END - START == 20 * S

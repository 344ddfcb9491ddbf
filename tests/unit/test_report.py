"""The report, from what the scheduler itself tells on a clock in memory, and from logs with holes in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest

from orchestrator.core.chronicle import BEGAN, Chronicle, Turn
from orchestrator.core.journal import START as NO_RECORD
from orchestrator.core.journal import follow
from orchestrator.core.limits import Everyone
from orchestrator.core.policy import Policy
from orchestrator.core.report import Report, make_report
from tests.fakes.chores import FakeChores
from tests.unit.report_records import CONFIRM, MS, START, S, tell_story

SECONDS = 20
END = START + SECONDS * S


@cache
def told() -> FakeChores:
    return tell_story(SECONDS, 12, policy=Policy(everyone=Everyone(guests=10, pool_share=60)))


def chronicle(events: Iterable[Any], samples: Iterable[Any] = (), since: int = START, now: int = END) -> Chronicle:
    found = Chronicle(since=since)
    for record in events:
        found.event(None if record is None else json.loads(json.dumps(record)))
    for record in samples:
        found.sample(json.loads(json.dumps(record)))
    found.finish(now)
    return found


def report(since: int = START) -> Report:
    return make_report(chronicle(told().events, told().samples, since), since, END)


def overlaps(turns: Iterable[Turn]) -> list[tuple[Turn, Turn]]:
    """Return pairs of turns that had one core at one time."""
    found, last = [], dict[int, Turn]()
    for turn in sorted(turns, key=lambda turn: turn.begin):
        for core in turn.cores:
            if core in last and last[core].end > turn.begin:
                found.append((last[core], turn))
            last[core] = turn
    return found


def test_no_core_is_held_by_two_at_once_and_little_time_is_lost() -> None:
    made = report()
    assert overlaps(made.turns) == []
    assert [line.core for line in made.cores] == [2, 3, 4, 5]
    assert made.cores[0].turns == 1
    assert all(line.held > 0.95 for line in made.cores)
    assert (made.unread, made.lost) == (0, 0)


def test_the_check_finds_a_turn_whose_end_was_told_too_late() -> None:
    late = [dict(each, at=each["at"] + 10 * MS) if each["what"] == "turn ended" else each for each in told().events]
    assert overlaps(chronicle(late).turns)


def test_guests_are_told_with_what_they_got_and_the_longest_wait_is_the_longest() -> None:
    made = report()
    assert made.longest is not None
    longest = max(record["waited"] for record in told().events if "waited" in record)
    assert made.longest.longest == made.guests[0].longest == longest
    assert {line.owner for line in made.guests} == {"alice", "bob", "carol"}
    (exclusive,) = [line for line in made.guests if not line.shared]
    assert (exclusive.name, exclusive.turns, exclusive.waits) == ("guest-01", 1, 0)
    assert exclusive.ran == SECONDS * S - CONFIRM * 2
    assert all(0.5 < line.ran / line.due < 1.5 for line in made.guests if line.shared and line.due)
    assert all(0 < line.nearest <= 1 for line in made.guests if line.waits)


def test_fairness_is_near_one_and_falls_when_one_guest_gets_nothing() -> None:
    whole = report().fairness
    assert whole is not None
    assert whole > 0.98
    starved = [each for each in told().events if each["what"] == "turn ended" and each["guest"] != "guest-02"]
    made = make_report(chronicle(starved, told().samples), START, END)
    assert made.fairness is not None
    assert made.fairness < whole - 0.05


def test_quotas_are_told_by_rule_with_their_course() -> None:
    lines = {(line.party, line.rule): line for line in report().quotas}
    assert (lines["alice", "guests"].used, lines["alice", "guests"].limit) == (4, 10)
    share = lines["alice", "pool share within 1 h"]
    assert 0 < share.used == share.most <= share.limit
    assert [used for _, used in share.course] == sorted(used for _, used in share.course)


def test_of_what_went_on_before_only_what_goes_on_is_shown_cut() -> None:
    since = START + 10 * S
    made = report(since)
    assert made.turns[0] == Turn("guest-01", "alice", (2,), since, END, shared=False)
    assert all(since <= turn.begin < turn.end <= END for turn in made.turns)
    assert all(part.begin >= since for part in made.parts)


def event(at: int, what: str, guest: str = "web", **more: Any) -> dict[str, Any]:
    return {"at": START + at * S, "what": what, "guest": guest, "cores": [2], **more}


def test_a_guest_that_outlives_its_scheduler_keeps_its_core_until_the_next_has_taken_over() -> None:
    story = [event(1, "turn began", shared=True), event(5, BEGAN, ""), event(6, "turn began", shared=True)]
    found = chronicle([*story, event(8, "turn ended", lasted=2 * S)])
    assert [(turn.begin - START, turn.end - START) for turn in found.turns] == [(S, 6 * S), (6 * S, 8 * S)]


def test_a_guest_that_nobody_has_taken_over_ends_with_its_scheduler() -> None:
    found = chronicle([event(1, "turn began"), event(5, BEGAN, "")])
    assert [(turn.begin - START, turn.end - START) for turn in found.turns] == [(S, 5 * S)]


def test_an_exclusive_guest_that_is_moved_has_two_bars() -> None:
    found = chronicle([event(1, "turn began"), event(3, "has these cores", cores=[4])])
    assert [(turn.cores, turn.end - turn.begin) for turn in found.turns] == [((2,), 2 * S), ((4,), END - START - 3 * S)]


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (None, (1, 0)),
        ({"at": "soon", "what": "turn began"}, (1, 0)),
        ({"at": START, "what": "turn began", "guest": "web", "cores": ["x"]}, (1, 0)),
        ({"at": START, "kind": "lost", "count": 7, "why": "disk full"}, (0, 7)),
        ({"at": START, "kind": "dropped", "count": 3}, (0, 3)),
        ({"at": START, "kind": "refused", "why": "odd"}, (0, 0)),
    ],
)
def test_what_cannot_be_read_or_was_lost_is_counted_and_the_rest_is_told(record: Any, counts: tuple[int, int]) -> None:
    found = chronicle([record, event(1, "turn began"), event(2, "turn ended", lasted=S)])
    assert (found.unread, found.lost) == counts
    assert len(found.turns) == 1


def test_incidents_of_both_sources_are_in_order_and_say_who_and_why() -> None:
    found = Chronicle()
    found.event(event(3, "quarantined", owner="bob", why="it did not confirm"))
    found.act(follow(NO_RECORD, START + 2 * S, "kill", {"guest": "web", "by": "root"}))
    found.act(None)
    found.event(event(1, "asked", owner="alice", by="bob", why="POST /v1/guests/web/pause"))
    found.finish(END)
    told = [(each.what, each.guest, each.owner, each.why, each.is_trouble) for each in found.incidents]
    assert told.pop(0) == ("asked", "web", "bob", "POST /v1/guests/web/pause", False)
    assert told == [("kill begun", "web", "root", "", False), ("quarantined", "web", "bob", "it did not confirm", True)]
    assert found.unread == 1


def test_an_empty_time_makes_an_empty_report() -> None:
    made = make_report(chronicle([]), START, END)
    assert (made.longest, made.fairness, made.turns, made.quotas) == (None, None, (), ())

"""What may be asked at the emergency console, and what of it goes on to hold; and the scheduler's heartbeat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.core.emergency import (
    Act,
    Banned,
    Reply,
    Request,
    Standing,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    standing_after,
    targets,
)
from orchestrator.core.heartbeat import HUNG_AFTER, Beat, Health, Pulse
from orchestrator.core.journal import START, Record, follow
from orchestrator.errors import UsageError


@pytest.mark.parametrize(
    "request_",
    [
        Request(act=Act.KILL, reason="loops", guests=("web", "db")),
        Request(act=Act.BAN, reason="coins", user="eve", seconds=60),
        Request(act=Act.RECLAIM, reason="mine", cores=(2, 3)),
        Request(act=Act.STATUS),
        Request(act=Act.JOURNAL, last=3),
    ],
)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert decode_request(encode_request(request_)) == request_


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{", "no request to the guard"),
        ("[]", "no request to the guard"),
        ({"act": "explode"}, "no request to the guard"),
        ({"act": "kill", "guests": ["web"]}, "kill: it needs a reason"),
        ({"act": "kill", "guests": ["web"], "reason": "\n "}, "kill: it needs a reason"),
        ({"act": "kill", "reason": "x"}, "kill: name guests, or the one user"),
        ({"act": "freeze", "reason": "x", "guests": ["a"], "user": "b"}, "freeze: name guests, or the one user"),
        ({"act": "ban", "reason": "x"}, "ban: name a user"),
        ({"act": "ban", "reason": "x", "user": "root"}, "root cannot be banned"),
        ({"act": "reclaim", "reason": "x"}, "reclaim: name the cores"),
        ({"act": "ban", "reason": "x", "user": "eve", "seconds": 0}, "a second or more"),
        ({"act": "lockdown", "reason": "\x1b[2J"}, "names and reasons are printable"),
        ({"act": "lockdown", "reason": "x" * 501}, "at most"),
    ],
)
def test_what_is_incomplete_is_told(said: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        decode_request((said if isinstance(said, str) else json.dumps(said)).encode())


def test_a_reply_is_read_as_it_was_written() -> None:
    reply = Reply(3, ("refused: so it is",), {"took_ns": 5})
    assert decode_reply(encode_reply(reply)) == reply
    with pytest.raises(UsageError, match="another version"):
        decode_reply(b"{}")


def recorded(*acts: tuple[str, dict[str, Any]]) -> list[Record]:
    head, records = START, []
    for kind, body in acts:
        records.append(follow(head, 0, kind, body))
        head = records[-1].head
    return records


def test_what_holds_is_what_the_journal_says() -> None:
    web = {"name": "web", "uuid": "u", "pid": 7, "began": 70, "owner": "eve", "cores": "2"}
    acts = recorded(
        (Act.BAN, {"user": "eve", "reason": "coins", "until": 100}),
        (Act.BAN, {"user": "bob", "reason": "noise", "until": None}),
        (Act.LOCKDOWN, {"reason": "fire"}),
        (Act.FREEZE, {"reason": "look", "guests": [web]}),
        ("refused", {"why": "a pty"}),
        (Act.UNBAN, {"user": "bob", "reason": "quiet"}),
        (Act.LIFT, {"reason": "out"}),
        (Act.THAW, {"reason": "done", "guests": [web]}),
    )
    assert standing_after(acts[:5]) == Standing(
        {"eve": Banned("coins", 100), "bob": Banned("noise")}, "fire", frozenset({("u", 7, 70)})
    )
    standing = standing_after(acts)
    assert standing == Standing({"eve": Banned("coins", 100)})
    assert standing.ban("eve", 99) == Banned("coins", 100)
    assert standing.ban("eve", 100) is None
    assert standing.ban("bob", 0) is None
    assert [each["name"] for each in targets(acts[3])] == ["web"]


def test_a_heartbeat_that_stops_is_told_once_and_so_is_its_return() -> None:
    pulse, second = Pulse(), 1_000_000_000
    beat = Beat(9, 90, second, ended=False)
    assert pulse.feel(None, 0, there=False) == ""
    assert pulse.feel(beat, second, there=True) == "the scheduler (process 9) is there"
    assert pulse.feel(beat, second + HUNG_AFTER, there=True) == ""
    told = pulse.feel(beat, second + HUNG_AFTER + 1, there=True)
    assert told == "the scheduler (process 9) hangs: no heartbeat for 0.70 s; guests go on"
    assert pulse.feel(beat, 2 * second, there=True) == ""
    later = Beat(9, 90, 3 * second, ended=False)
    assert pulse.feel(later, 3 * second, there=True) == "the scheduler (process 9) goes on, after 2.00 s"
    assert pulse.feel(later, 3 * second, there=False) == "the scheduler (process 9) has died; guests go on"
    assert pulse.health is Health.DIED
    ended = Beat(10, 99, 4 * second, ended=True)
    assert pulse.feel(ended, 9 * second, there=False) == "the scheduler (process 10) has ended; guests go on"

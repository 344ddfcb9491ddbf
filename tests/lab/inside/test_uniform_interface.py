"""One interface for every architecture: the same commands, the same answers, the same effects."""

from __future__ import annotations

import pytest

from tests.lab.inside.crowd import Crowd
from tests.lab.inside.looking import ask, command, eventually, guests, heartbeats
from tests.lab.inside.servers import events

ARCHITECTURES = ("aarch64", "armv7l", "i386", "x86_64")


@pytest.fixture
def four(crowd: Crowd) -> list[str]:
    """A shared guest of each architecture."""
    return [crowd.one(architecture) for architecture in ARCHITECTURES]


def test_what_is_told_of_each_has_the_same_shape(four: list[str]) -> None:
    for asked in ("show", "explain"):
        told = [ask(asked, name) for name in four]
        assert len({frozenset(each) for each in told}) == 1, told
    rows = [guests()[name] for name in four]
    assert [row["architecture"] for row in rows] == list(ARCHITECTURES)
    assert {(row["mode"], row["accelerator"], row["owner"]) for row in rows} == {("shared", "tcg", "root")}
    for name in four:
        assert "heartbeat 1" in ask("logs", name)["lines"]


def test_who_is_paused_stands_still_while_others_go_on_until_he_is_resumed(crowd: Crowd, four: list[str]) -> None:
    assert command("pause", *four).code == 0
    assert {ask("explain", name)["state"] for name in four} == {"paused"}
    others = {member.name: heartbeats(member.name) for member in crowd.shared[-2:]}
    before = {name: heartbeats(name) for name in four}
    eventually(lambda: all(heartbeats(name) > beats for name, beats in others.items()), "the others go on")
    assert {name: heartbeats(name) for name in four} == before
    assert command("resume", *four).code == 0
    eventually(lambda: all(heartbeats(name) > beats for name, beats in before.items()), "they go on")


def test_a_user_ends_one_of_each_and_starts_one_anew(four: list[str]) -> None:
    before = guests()[four[0]]["pid"]
    assert command("kill", *four[:2]).code == 0
    assert command("stop", *four[2:]).code == 0
    ended = guests()
    assert {ended[name]["state"] for name in four} == {"stopped"}
    assert {ended[name]["pid"] for name in four} == {None}
    assert not {core["holder"] for core in ask("cores")["cores"]} & set(four)
    assert all(ask("explain", name)["reasons"][0].startswith("it has ended: ") for name in four)
    again = four[0]
    assert command("restart", again).code == 0
    assert guests()[again]["state"] in ("running", "waiting")
    assert guests()[again]["pid"] not in (None, before)
    beats = heartbeats(again)
    eventually(lambda: heartbeats(again) > beats, "it beats anew")
    assert command("rm", *four[1:]).code == 0
    assert not set(guests()) & set(four[1:])
    assert {event["guest"] for event in events() if event["what"] == "removed"} == set(four[1:])

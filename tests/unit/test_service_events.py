"""Events: numbered, in order, and whoever is too slow is told how many he missed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.orders import Happening, Notice
from orchestrator.service.events import Event, Events, Missed
from tests.unit.service_daemon import ALICE, ROOT, daemon_on, definition, run

SECOND = 1_000_000_000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def events_of(kept: int) -> Events:
    seconds = count()
    return Events(kept, clock=lambda: NOON + timedelta(seconds=next(seconds)))


async def read(events: Events, since: int = 0) -> list[Event | Missed]:
    return [each async for piece in events.read(since, follow=False) for each in piece]


@given(kept=st.integers(1, 150), added=st.integers(0, 400), since=st.integers(0, 500))
def test_a_reader_gets_each_event_after_a_number_or_is_told_how_many_he_does_not(
    kept: int, added: int, since: int
) -> None:
    async def story() -> None:
        events = events_of(kept)
        for _ in range(added):
            events.add("turn began", "web")
        got = await read(events, since)
        start = since if since <= added else 0  # a number that nobody has given out yet is another daemon's
        missed = sum(each.missed for each in got if isinstance(each, Missed))
        numbers = [each.seq for each in got if isinstance(each, Event)]
        assert numbers == list(range(start + missed + 1, added + 1))
        assert missed == max(0, added - kept - start)
        assert sum(isinstance(each, Missed) for each in got) == (missed > 0)

    asyncio.run(story())


def test_an_event_says_when_what_to_whom_and_why() -> None:
    async def story() -> None:
        events = events_of(10)
        events.add("turn began", "web", "alice", (2, 3), "its turn")
        at = "2026-01-01T12:00:00.000000+00:00"
        assert await read(events) == [Event(1, at, "turn began", "web", "alice", (2, 3), "its turn")]
        assert events.last == 1

    asyncio.run(story())


def test_a_shared_guests_turn_says_how_long_it_had_waited_and_how_long_it_could_have(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.desk.note(
                Notice(Happening.TURN_BEGAN, "web", 5 * SECOND, (2,), since=2 * SECOND, latest=10 * SECOND)
            )
            daemon.desk.note(Notice(Happening.TURN_BEGAN, "exclusive", 5 * SECOND, (3,), since=5 * SECOND))
            daemon.desk.note(Notice(Happening.TURN_ENDED, "web", 7 * SECOND, (2,), since=5 * SECOND))
            told = [event["waited"] async for event in daemon.client.events(0, follow=False)]
            assert told == [{"seconds": 3.0, "bound": 8.0}, None, None]

    run(story)


def test_what_happens_to_guests_is_told_to_two_followers_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:

            async def follow() -> list[Any]:
                seen = []
                async for event in daemon.client.events(0, follow=True):
                    seen.append(event)
                    if event["what"] == "removed":
                        break
                return seen

            followers = [asyncio.create_task(follow()) for _ in range(2)]
            await daemon.start(definition())
            await daemon.client.act("stop", "web")
            await daemon.client.remove("web")
            first, second = await asyncio.gather(*followers)
            assert first == second
            assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
            words = [event["what"] for event in first if event["guest"] == "web"]
            assert [event["cores"] for event in first if event["what"] == "turn began"] == [[2]]
            assert words.index("done") < words.index("turn ended") < words.index("removed")
            last = first[-2]["seq"]
            assert [event["seq"] async for event in daemon.client.events(last, follow=False)] == [last + 1]

    run(story)


def test_a_caller_who_does_not_read_is_told_what_he_missed_and_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, events=Events(200)) as daemon:
            reader, writer = await asyncio.open_unix_connection(str(daemon.path), limit=1024)
            writer.write(b"GET /v1/events?follow=1 HTTP/1.0\r\nHost: x\r\n\r\n")
            while daemon.desk.events.last < 5000:
                for _ in range(100):
                    daemon.desk.events.add("noise", "web", "", (2,), "x" * 200)
                await asyncio.sleep(0)
            await daemon.shown()  # others are answered meanwhile
            daemon.desk.events.close()
            lines = (await reader.read()).partition(b"\r\n\r\n")[2].splitlines()
            writer.close()
            told = [json.loads(line) for line in lines]
            numbers = [each["seq"] for each in told if "seq" in each]
            missed = sum(each["missed"] for each in told if "missed" in each)
            assert missed > 1000
            assert len(numbers) + missed == 5000
            assert numbers == sorted(set(numbers))
            assert numbers[-200:] == list(range(4801, 5001))

    run(story)


def test_the_followers_end_with_the_daemon(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.desk.events.add("begun")
            seen = []
            async for event in daemon.client.events(0, follow=True):
                seen.append(event["what"])
                daemon.desk.events.close()
            assert seen == ["begun"]

    run(story)


def test_numbers_go_on_over_a_restart_and_who_comes_with_an_older_one_is_told_of_it() -> None:
    async def story() -> None:
        events = Events(10, clock=lambda: NOON, first=1001)
        events.add("begun")
        assert [each.seq for each in await read(events) if isinstance(each, Event)] == [1001]
        assert await read(events, 900) == [Missed(0, restarted=True), *await read(events)]
        assert await read(events, 1001) == []
        assert await read(events, 5000) == await read(events), "nobody has told of it yet"

    asyncio.run(story())


def test_who_asked_is_told_to_whose_guest_it_is_and_kept(tmp_path: Path) -> None:
    kept: list[Event] = []

    async def story() -> None:
        async with daemon_on(tmp_path, events=Events(keep=kept.append)) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            daemon.caller = ROOT
            await daemon.client.act("pause", "web")
            daemon.caller = ALICE
            asked = [each async for each in daemon.client.events(0, follow=False) if each["by"]]
            assert [(each["guest"], each["by"], each["why"]) for each in asked] == [
                ("", ALICE.user, "POST /v1/guests"),
                ("web", "root", "POST /v1/guests/web/pause"),
            ]

    run(story)
    assert [(each.what, each.owner) for each in kept] == [("asked", ALICE.user)] * 2

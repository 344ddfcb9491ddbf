"""Who comes in: bans, rates, connections, the admin group, acting for another; each through the socket."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.service import client as client_module
from orchestrator.service.callers import Peer, is_member, user_name, user_numbers
from orchestrator.service.client import Client
from orchestrator.service.door import Ban, Door
from orchestrator.service.limits import Buckets, Lines
from orchestrator.service.messages import BannedError, ForbiddenError, TooManyError
from tests.unit.service_daemon import ALICE, BOB, ROOT, Daemon, daemon_on, definition, eventually, http, run


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Banned:
    """Bans alice, once that has been said."""

    ban: Ban | None = None

    def of(self, user: str, /) -> Ban | None:
        return self.ban if user == ALICE.user else None


class CarolIsAdmin(Door):
    """As if the group database had her in the admin group."""

    async def _recognized(self, peer: Peer) -> Peer:
        found = await super()._recognized(peer)
        return Peer(found.pid, found.uid, found.gid, found.name, admin=found.uid == CAROL.uid)


CAROL = Peer(pid=4, uid=4_000_003, gid=4_000_003)


async def started_by(daemon: Daemon, who: Peer, name: str) -> None:
    daemon.caller = who
    await daemon.start(definition(name))


def test_a_banned_user_gets_nothing_but_the_reason(tmp_path: Path) -> None:
    bans = Banned()

    async def story() -> None:
        async with daemon_on(tmp_path, door=Door(Clock(), bans=bans)) as daemon:
            await started_by(daemon, ALICE, "web")
            bans.ban = Ban("mined coins", datetime(2026, 12, 24, 18))
            told = "4000001 is banned until 2026-12-24 18:00: mined coins"
            for ask in ("GET /v1/guests", "GET /v1/openapi.json", "POST /v1/guests/web/stop", "GET /v1/nowhere"):
                status, body = await http(daemon.path, ask)
                assert (status, json.loads(body)["error"], json.loads(body)["lines"]) == (403, "banned", [told])
            with pytest.raises(BannedError, match=told) as refused:
                await daemon.client.act("stop", "web")
            assert refused.value.exit_code == 3
            daemon.caller = ROOT
            assert await daemon.shown() == {"web": "running"}
            async with Client(daemon.path, user=ALICE.user) as acting:
                with pytest.raises(BannedError, match="mined coins"):
                    await acting.guests()
            bans.ban = None
            daemon.caller = ALICE
            assert await daemon.shown() == {"web": "running"}

    run(story)


def test_a_ban_ends_what_is_being_read(tmp_path: Path) -> None:
    bans = Banned()

    async def story() -> None:
        async with daemon_on(tmp_path, door=Door(Clock(), bans=bans)) as daemon:
            await started_by(daemon, ALICE, "web")
            events = daemon.client.events(0, follow=True)
            assert (await anext(events))["owner"] == ALICE.user
            bans.ban = Ban("enough")
            daemon.desk.events.add("something", owner=ALICE.user)
            left = [event["what"] async for event in events]
            assert "something" not in left

    run(story)


def test_a_user_who_asks_too_often_is_told_when_to_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PATIENCE", 0.0)
    clock = Clock()

    async def story() -> None:
        door = Door(clock, buckets=Buckets(clock, rate=0.5, burst=3))
        async with daemon_on(tmp_path, door=door) as daemon:
            daemon.caller = ALICE
            for _ in range(3):
                await daemon.client.guests()
            with pytest.raises(TooManyError, match=r"you ask for too much at once; try again in 2\.0 s") as refused:
                await daemon.client.guests()
            assert (refused.value.exit_code, refused.value.retry_after) == (3, 2.0)
            status, body = await http(daemon.path, "GET /v1/cores")
            assert (status, json.loads(body)["retry_after"]) == (429, 2.0)
            daemon.caller = BOB
            await daemon.client.guests()
            daemon.caller = ROOT
            for _ in range(10):
                await daemon.client.guests()
            daemon.caller = ALICE
            clock.now += 2
            await daemon.client.guests()

    run(story)


def test_a_client_asks_again_when_it_was_told_to(tmp_path: Path) -> None:
    async def story() -> None:
        buckets = Buckets(asyncio.get_running_loop().time, rate=20, burst=1)
        async with daemon_on(tmp_path, door=Door(Clock(), buckets=buckets)) as daemon:
            daemon.caller = ALICE
            for _ in range(5):
                assert await daemon.client.guests() == []

    run(story)


def test_buckets_fill_up_to_the_brim_and_are_forgotten_when_full() -> None:
    clock = Clock()
    buckets = Buckets(clock, rate=2, burst=4)
    assert [buckets.take(1) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    clock.now += 0.25
    assert buckets.take(1) == 0.25
    clock.now -= 3  # a clock that goes back gives nothing
    assert buckets.take(1) == 0.5
    clock.now += 1000
    assert [buckets.take(1) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    for uid in range(2, 5000):
        buckets.take(uid)
        clock.now += 1
    assert len(buckets._buckets) <= 1024


def test_connections_are_counted_by_user_and_in_total() -> None:
    lines = Lines(most=2, in_total=3)
    assert [lines.enter(uid) for uid in (1, 1, 2)] == ["", "", ""]
    assert lines.enter(1) == "you have 2 connections open, and may have no more; close some of them"
    assert lines.enter(3) == "3 connections are open, and there may be no more; try again soon"
    lines.leave(1)
    assert (lines.enter(3), lines.total) == ("", 3)
    for uid in (1, 2, 3):
        lines.leave(uid)
    assert lines.total == 0


def test_a_user_with_too_many_connections_is_refused_one_more_and_others_are_not(tmp_path: Path) -> None:
    lines = Lines(most=3)

    async def story() -> None:
        async with daemon_on(tmp_path, lines=lines) as daemon, contextlib.AsyncExitStack() as opened:
            daemon.caller = ALICE
            for _ in range(3):
                _, writer = await asyncio.open_unix_connection(str(daemon.path))
                opened.callback(writer.close)
            status, body = await http(daemon.path, "GET /v1/guests")
            assert (status, json.loads(body)["error"]) == (429, "too many")
            assert json.loads(body)["lines"][0].startswith("you have 3 connections open, and may have no more")
            daemon.caller = BOB
            assert (await http(daemon.path, "GET /v1/guests"))[0] == 200
            daemon.caller = ROOT
            assert (await http(daemon.path, "GET /v1/guests"))[0] == 200
        await eventually(lambda: not lines.total)  # all were counted out again

    run(story)


def test_a_member_of_the_admin_group_sees_all_and_touches_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, door=CarolIsAdmin(Clock())) as daemon:
            await started_by(daemon, ALICE, "web")
            await started_by(daemon, BOB, "db")
            daemon.caller = CAROL
            assert await daemon.shown() == {"web": "running", "db": "running"}
            await daemon.client.act("stop", "db")
            assert (await daemon.client.guest("db"))["owner"] == BOB.user

    run(story)


def test_an_admin_acts_for_another_as_that_one_and_it_is_noted(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, door=CarolIsAdmin(Clock())) as daemon:
            await started_by(daemon, BOB, "db")
            daemon.caller = CAROL
            async with Client(daemon.path, user=ALICE.user) as acting:
                daemon_client, daemon.client = daemon.client, acting
                (guest,) = (await daemon.start(definition("web")))["guests"]
                assert guest["owner"] == ALICE.user
                assert await daemon.shown() == {"web": "running"}
                with pytest.raises(ForbiddenError):
                    await acting.act("stop", "db")
                daemon.client = daemon_client
            noted = [each async for each in daemon.client.events(0, follow=False) if each["what"] == "acted for"]
            assert [(each["owner"], each["why"]) for each in noted] == [
                (ALICE.user, "by 4000003: POST /v1/guests"),
                (ALICE.user, "by 4000003: POST /v1/guests/db/stop"),
            ]

    run(story)


@pytest.mark.parametrize(
    ("caller", "wanted", "error", "told"),
    [
        (ALICE, BOB.user, ForbiddenError, "you are 4000001, and may not act for 4000002; an admin may"),
        (ALICE, "root", ForbiddenError, "you are 4000001, and may not act for root; an admin may"),
        (CAROL, "root", ForbiddenError, "you are 4000003, and nobody but root acts for root"),
        (CAROL, "0", ForbiddenError, "you are 4000003, and nobody but root acts for root"),
        (CAROL, "no such user", UsageError, "no such user: this host has no such user"),
        (ROOT, "4294967295", UsageError, "4294967295: this host has no such user"),
        (ROOT, "-1", UsageError, "-1: this host has no such user"),
        (ROOT, "a\x00b", UsageError, "a\x00b: this host has no such user"),
    ],
)
def test_who_may_not_act_for_another_is_told_so(
    tmp_path: Path, caller: Peer, wanted: str, error: type[Exception], told: str
) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, door=CarolIsAdmin(Clock())) as daemon:
            daemon.caller = caller
            async with Client(daemon.path, user=wanted) as acting:
                with pytest.raises(error) as refused:
                    await acting.guests()
                assert str(refused.value) == told

    run(story)


def test_who_acts_for_himself_needs_no_leave(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            async with Client(daemon.path, user=ALICE.user) as acting:
                assert await acting.guests() == []

    run(story)


def test_groups_are_the_databases_word() -> None:
    entry = pwd.getpwuid(0)
    first = grp.getgrgid(entry.pw_gid).gr_name
    assert is_member(0, first)
    assert not is_member(0, "no such group")
    assert not is_member(ALICE.uid, first)
    assert (user_name(0), user_name(ALICE.uid)) == (entry.pw_name, str(ALICE.uid))
    numbers = {name: user_numbers(name) for name in (entry.pw_name, "0", "4000001", "nobody here")}
    assert list(numbers.values()) == [(0, entry.pw_gid), (0, entry.pw_gid), (4_000_001, 65534), None]


def test_the_daemons_own_user_is_never_kept_out(tmp_path: Path) -> None:
    own = Peer(pid=1, uid=os.geteuid(), gid=0)

    async def story() -> None:
        clock = Clock()
        async with daemon_on(tmp_path, door=Door(clock, buckets=Buckets(clock, burst=0)), lines=Lines(0)) as daemon:
            daemon.caller = own
            assert await daemon.client.guests() == []
            daemon.caller = BOB
            assert (await http(daemon.path, "GET /v1/guests"))[0] == 429

    run(story)


def test_in_a_lockdown_everybody_may_look_and_nobody_act(tmp_path: Path) -> None:
    why: list[str] = []

    async def story() -> None:
        door = Door(Clock(), lockdown=lambda: why[0] if why else None)
        async with daemon_on(tmp_path, door=door) as daemon:
            await started_by(daemon, ALICE, "web")
            why.append("fire")
            for who in (ALICE, ROOT):
                daemon.caller = who
                assert await daemon.shown() == {"web": "running"}
                status, body = await http(daemon.path, "POST /v1/guests/web/stop")
                assert status == 403
                assert "lockdown by the emergency console: fire" in json.loads(body)["lines"][0]
            why.clear()
            await daemon.client.act("stop", "web")

    run(story)


def test_emergency_acts_are_not_the_apis_and_whoever_asks_is_recorded(tmp_path: Path) -> None:
    recorded: list[tuple[str, Any]] = []

    async def record(kind: str, body: Any) -> None:
        recorded.append((kind, body))

    async def story() -> None:
        door = Door(Clock(), record=record, lockdown=lambda: "fire")
        async with daemon_on(tmp_path, door=door) as daemon:
            for who in (ALICE, ROOT):
                daemon.caller = who
                status, body = await http(daemon.path, "POST /v1/admin/kill")
                assert (status, json.loads(body)["error"]) == (403, "forbidden")
                assert "emergency acts are not the API's" in json.loads(body)["lines"][0]

    run(story)
    assert [(kind, body["by"]["uid"], body["path"]) for kind, body in recorded] == [
        ("refused", ALICE.uid, "/v1/admin/kill"),
        ("refused", ROOT.uid, "/v1/admin/kill"),
    ]

"""Payloads through the daemon: whose they are, who maps them, and that what is private to another is not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import FailedError, OrchestratorError, RefusedError, UsageError
from orchestrator.service.messages import ForbiddenError
from orchestrator.service.payload_desk import AddRequest
from tests.fakes.payloads import FakePayloads
from tests.unit.service_daemon import ALICE, BOB, ROOT, Daemon, daemon_on, definition, run

TOOLS, DIGEST = b"tools", hashlib.sha256(b"tools").hexdigest()


def store(daemon: Daemon) -> FakePayloads:
    payloads = daemon.engine.payloads
    assert isinstance(payloads, FakePayloads)
    return payloads


async def add(daemon: Daemon, content: bytes = TOOLS, name: str = "tools", *, public: bool = False) -> Any:
    path = f"/{hashlib.sha256(content).hexdigest()}"
    store(daemon).sources[path] = content
    return await daemon.client.add_payload(AddRequest(path, name, public))


def mapping(name: str = "web", digest: str = DIGEST) -> str:
    return definition(name) + f'[payload]\ndigest = "{digest}"\nmap = "window"\n'


ASKS: dict[str, Callable[[Daemon, str], Awaitable[Any]]] = {
    "ls": lambda daemon, _: daemon.client.payloads(),
    "verify": lambda daemon, reference: daemon.client.payload_act("verify", reference),
    "rm": lambda daemon, reference: daemon.client.payload_act("remove", reference),
    "shares": lambda daemon, _: daemon.client.payload_shares(),
    "gc": lambda daemon, _: daemon.client.collect_payloads(),
    "start": lambda daemon, _: daemon.start(mapping()),
    "add": lambda daemon, _: add(daemon, name="mine"),
}


def test_what_is_private_to_another_cannot_be_used_listed_or_inferred(tmp_path: Path) -> None:
    """Whatever a user asks, the answers are those of a daemon where the other has nothing."""

    async def answers(socket: Path, *, there: bool) -> list[str]:
        told: list[str] = []
        async with daemon_on(socket) as daemon:
            daemon.caller = ALICE
            if there:
                await add(daemon)
                await daemon.start(mapping("alices"))
            daemon.caller = BOB
            for reference in ("tools", "4000001/tools", DIGEST):
                for what, ask in ASKS.items():
                    try:
                        told.append(f"{what} {json.dumps(await ask(daemon, reference))}")
                    except OrchestratorError as error:
                        told.append(f"{what} {type(error).__name__} {error}")
                    if what == "add":
                        await daemon.client.payload_act("remove", "mine")
        return told

    async def story() -> None:
        for name in ("with", "without"):
            (tmp_path / name).mkdir()
        seen = [await answers(tmp_path / name, there=name == "with") for name in ("with", "without")]
        assert seen[0] == seen[1]
        assert [line for line in seen[0] if line.startswith(("rm", "verify"))] != []

    run(story)


def test_a_public_payload_is_everybodys_to_map_and_its_owners_to_remove(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await add(daemon, public=True)
            daemon.caller = BOB
            await daemon.start(mapping("bobs"))
            (row,) = (await daemon.client.payloads())["payloads"]
            assert (row["owner"], row["guests"]) == ("4000001", ["bobs"])
            assert [share["guest"] for share in (await daemon.client.payload_shares())["shares"]] == ["bobs"]
            with pytest.raises(ForbiddenError, match="this payload is 4000001's, and you are 4000002"):
                await daemon.client.payload_act("remove", "tools")
            daemon.caller = ALICE
            with pytest.raises(RefusedError, match="tools: is in use by guests of others; stop them first"):
                await daemon.client.payload_act("remove", "tools")
            daemon.caller = ROOT
            with pytest.raises(RefusedError, match="in use by bobs"):
                await daemon.client.payload_act("remove", "4000001/tools")
            await daemon.client.act("stop", "bobs")
            daemon.caller = ALICE
            await daemon.client.payload_act("remove", "tools")
            assert (await daemon.client.payloads())["payloads"] == []

    run(story)


def test_a_quota_refuses_and_says_what_is_left(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await add(daemon, b"x" * 60)
            with pytest.raises(RefusedError, match="wanted 50 bytes, available 40 of 100"):
                await add(daemon, b"y" * 50, "more")
            assert {key: (await daemon.client.payloads())[key] for key in ("used", "quota")} == {
                "used": 60,
                "quota": 100,
            }

    run(story)


def test_a_payload_that_was_changed_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await add(daemon)
            await daemon.start(mapping("before"))
            payloads = store(daemon)
            payloads.content = dict.fromkeys(payloads.content, b"spoilt")
            with pytest.raises(FailedError, match="its file is not what was added"):
                await daemon.start(mapping("after"))
            assert not any("define after" in line for line in daemon.host.trace)
            with pytest.raises(FailedError, match="its file is not what was added"):
                await daemon.client.payload_act("verify", "tools")

    run(story)


def test_a_guest_whose_payload_is_cut_short_ends_with_that_reason_and_no_other_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await add(daemon)
            await daemon.start(mapping("victim"), definition("other"))
            payloads = store(daemon)
            payloads.content = dict.fromkeys(payloads.content, b"cut")
            daemon.host.ends("victim")
            while (await daemon.shown())["victim"] != "stopped":
                await daemon.host.clock.sleep(0.01)
            assert "its payload was changed under it: /payloads/" in (await daemon.client.guest("victim"))["ended"]
            assert (await daemon.shown())["other"] == "running"

    run(story)


def test_requests_that_make_no_sense_are_told_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            with pytest.raises(UsageError, match="is no absolute path"):
                await daemon.client.add_payload(AddRequest("relative", "x"))
            with pytest.raises(UsageError, match="it is a name, OWNER/NAME"):
                await daemon.client.payload_act("verify", "a b")

    run(story)


@pytest.mark.parametrize("huge", [True, False])
def test_gc_keeps_in_huge_pages_what_a_guest_maps_so(tmp_path: Path, huge: bool) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ROOT
            await add(daemon)
            text = mapping()
            await daemon.start(text.replace("[boot]", 'hugepages = "2 MiB"\n[boot]') if huge else text)
            await daemon.client.collect_payloads()
            assert store(daemon).kept == ({DIGEST} if huge else set())

    run(story)

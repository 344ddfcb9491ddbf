"""Serial ports through the daemon: what guests print, and consoles; each for its owner alone."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from orchestrator.errors import FailedError, UsageError
from orchestrator.service import streams
from orchestrator.service.client import Client
from orchestrator.service.messages import ForbiddenError
from tests.unit.service_daemon import ALICE, BOB, Daemon, daemon_on, definition, eventually, http, run


async def printed(daemon: Daemon, *, follow: bool = False) -> bytes:
    return b"".join([piece async for piece in daemon.client.log("web", follow=follow)])


def test_the_owner_reads_what_his_guest_has_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PIECE", 8)

    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            assert await printed(daemon) == b""
            daemon.host.prints("web", b"heartbeat 1\nheartbeat \xff\n")
            assert await printed(daemon) == b"heartbeat 1\nheartbeat \xff\n"
            assert await http(daemon.path, "GET /v1/guests/web/log?start=21") == (200, b" \xff\n")
            assert await http(daemon.path, "GET /v1/guests/web/log?start=999") == (200, b"")
            assert (await http(daemon.path, "GET /v1/guests/web/log?start=-1"))[0] == 400

    run(story)


def test_a_log_is_followed_until_the_guest_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.01)

    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition())
            daemon.host.prints("web", b"one\n")
            pieces = daemon.client.log("web", follow=True)
            assert await anext(pieces) == b"one\n"
            daemon.host.prints("web", b"two\n")
            assert await anext(pieces) == b"two\n"
            await daemon.client.act("stop", "web")
            assert [piece async for piece in pieces] == []

    run(story)


def test_a_console_carries_both_ways_and_is_one_persons(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            async with daemon.client.console("web") as console:
                assert await console.receive_bytes() == b"hello\n"
                await console.send_bytes(b"reboot\n")
                assert await console.receive_bytes() == b"reboot\n"
                async with Client(daemon.path) as second:
                    with pytest.raises(FailedError, match="another console is attached to this guest"):
                        async with second.console("web"):
                            pass
            await eventually(lambda: not daemon.serials.attached_to)
            async with daemon.client.console("web") as console:
                assert await console.receive_bytes() == b"hello\n"

    run(story)


def test_nobody_reads_or_types_on_anothers_port(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            daemon.host.prints("web", b"secret\n")
            daemon.caller = BOB
            with pytest.raises(ForbiddenError):
                await printed(daemon)
            with pytest.raises(ForbiddenError):
                async with daemon.client.console("web"):
                    pass
            assert daemon.serials.attached_to == set()
            for name in ("ghost", "..", "../web", "web/../web"):
                with pytest.raises(UsageError):
                    async for _ in daemon.client.log(name, follow=False):
                        pass

    run(story)


def test_a_console_that_is_no_websocket_is_told_what_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition())
            with pytest.raises(UsageError, match="a console is a WebSocket"):
                await daemon.client._ask("GET", "guests/web/console")
            connector = aiohttp.UnixConnector(str(daemon.path))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.ws_connect("http://x/v1/guests/web/console") as console,
            ):
                await console.send_bytes(bytes(66_000))  # more than a message may have
                async for _ in console:
                    pass
                assert console.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    run(story)

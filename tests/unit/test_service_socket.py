"""The socket, and what a client says when nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.errors import HostError, OrchestratorError, OutcomeUnknownError, RefusedError
from orchestrator.service.client import Client
from orchestrator.service.server import answering, listening, serving
from orchestrator.wiring import client as wired
from tests.unit.service_daemon import ALICE, daemon_on, run


def test_anybody_may_connect_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            assert stat.S_IMODE(daemon.path.stat().st_mode) == 0o666
            assert wired.find(daemon.path) == daemon.path
        assert not daemon.path.exists()

    run(story)


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))

    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            assert await daemon.client.guests() == []

    run(story)


def test_a_socket_on_which_another_daemon_listens_is_left_to_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            with pytest.raises(RefusedError, match="another daemon listens there"):
                async with serving(web.Application(), daemon.path):
                    pass
            assert await daemon.client.guests() == []

    run(story)


def test_who_calls_before_anybody_answers_is_answered_then(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def story() -> None:
        with listening(path) as listener, socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(60)
            caller.connect(str(path))
            caller.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            async with answering(web.Application(), listener, peer=lambda _: ALICE):
                assert (await asyncio.to_thread(caller.recv, 12)) == b"HTTP/1.1 404"
            assert not path.exists()

    run(story)


def test_who_calls_and_is_never_answered_is_hung_up_on(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as caller:
        with listening(path):
            caller.connect(str(path))
        assert not path.exists()
        with contextlib.suppress(ConnectionResetError):
            assert caller.recv(1) == b""


@pytest.mark.parametrize("rounds", range(6))
def test_who_connects_as_it_ends_is_hung_up_on(tmp_path: Path, rounds: int) -> None:
    """However far the loop has got with a connection: it is left open by nobody, which would be told of here."""

    async def story() -> None:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(60)
            async with serving(web.Application(), tmp_path / "socket", peer=lambda _: ALICE):
                caller.connect(str(tmp_path / "socket"))
                for _ in range(rounds):
                    await asyncio.sleep(0)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(caller.recv, 1) == b""

    run(story)
    gc.collect()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "socket").write_text("mine")

    async def story() -> None:
        async with serving(web.Application(), tmp_path / "socket"):
            pass

    with pytest.raises(RefusedError, match="is there already, and is no socket"):
        run(story)
    assert (tmp_path / "socket").read_text() == "mine"


def test_a_socket_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(web.Application(), tmp_path / "nowhere" / "socket"):
            pass

    with pytest.raises(HostError, match=r"no socket can be made there: .*; name another with --socket"):
        run(story)


@contextlib.asynccontextmanager
async def somebody(path: Path, answer: bytes) -> AsyncIterator[Client]:
    """Somebody who answers every request with these bytes and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(handle, str(path))
    async with server, Client(path) as client:
        yield client


def test_a_daemon_that_goes_away_leaves_an_act_unknown_and_a_question_unanswered(tmp_path: Path) -> None:
    async def story() -> None:
        async with somebody(tmp_path / "socket", b"") as client:
            with pytest.raises(OutcomeUnknownError, match="whether it was done is not known: look with"):
                await client.act("stop", "web")
            with pytest.raises(HostError, match="the daemon does not answer"):
                await client.guests()
            with pytest.raises(HostError, match="the daemon does not answer"):
                [event async for event in client.events(0, follow=True)]

    run(story)


def test_an_answer_that_is_not_the_daemons_is_told_as_that(tmp_path: Path) -> None:
    async def story() -> None:
        answer = b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 4\r\n\r\nfoul"
        async with somebody(tmp_path / "socket", answer) as client:
            with pytest.raises(OrchestratorError, match="the daemon answers 418 I'm a teapot, and not as we know it"):
                await client.guests()

    run(story)


def test_where_no_daemon_runs_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path))
    assert wired.find(None) is None
    with pytest.raises(HostError, match="start: no scheduler runs here, and this needs one; `orchestrator serve`"):
        wired.require(None, "start")
    with pytest.raises(HostError, match=r"here: no daemon listens there; `orchestrator serve --socket .*here` starts"):
        wired.find(tmp_path / "here")

    async def story() -> None:
        async with Client(tmp_path / "socket") as client:
            with pytest.raises(HostError, match="the daemon does not answer"):
                await client.act("stop", "web")  # it has certainly not been done

    run(story)

"""Schemathesis against the API's own description, where it is installed: `pip install 'orchestrator[fuzz]'`.

tests/unit/test_service_openapi.py makes requests of the description without it, each time; this is another's judgement.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.service.callers import Peer
from orchestrator.service.door import Door
from orchestrator.service.limits import Buckets, Lines
from tests.unit.service_daemon import ALICE, ROOT, daemon_on, definition

PROGRAM = Path(sys.executable).with_name("schemathesis")
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
WITHOUT_END = '[parameters]\n"query.follow" = 0\n'
"""What is followed goes on as long as the daemon; Schemathesis waits for the end of each answer."""

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="an extra, with many dependencies: orchestrator[fuzz]")


@contextlib.asynccontextmanager
async def port_to(path: Path) -> AsyncIterator[int]:
    """Pass connections to a port of this host's own on to a Unix socket, which Schemathesis cannot reach."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(path))
        await asyncio.gather(copied(reader, back), copied(there, writer), return_exceptions=True)

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("caller", [ALICE, ROOT], ids=["a user", "root"])
def test_schemathesis_finds_no_5xx_no_hang_and_no_answer_that_is_not_described(tmp_path: Path, caller: Peer) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(WITHOUT_END)

    patient = Door(time.monotonic, buckets=Buckets(time.monotonic, rate=10_000.0, burst=10_000))

    async def story() -> None:
        # With the limits that are usual a user would only be told to ask later.
        serving = daemon_on(tmp_path, door=patient, lines=Lines(most=1000))
        async with serving as daemon, port_to(daemon.path) as port:
            daemon.caller = caller
            await daemon.start(definition("web"), definition("db", "shared"))
            process = await asyncio.create_subprocess_exec(
                *(str(PROGRAM), "--config-file", str(config), "run", f"http://127.0.0.1:{port}/v1/openapi.json"),
                *("--checks", ",".join(CHECKS), "--max-examples", "10", "--request-timeout", "60"),
                *("--generation-database", "none", "--seed", "1", "--exclude-path-regex", "/console$"),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            told, _ = await process.communicate()
            assert process.returncode == 0, told.decode()[-8000:]
            assert daemon.log == []
            (line,) = [line for line in told.decode().splitlines() if "generated," in line]
            assert int(line.split()[0]) > 500, line

    asyncio.run(story())

"""`logs` and `console` as their users call them, where only the daemon can reach the serial port."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import termios
from pathlib import Path

from tests.functional.program import PROGRAM
from tests.unit.service_daemon import daemon_on, definition, run


async def called(path: Path, *arguments: str, typed: bytes = b"") -> tuple[int | None, bytes, bytes]:
    """Call the program, which is given this to read, and then the end of it."""
    program = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), *arguments, "--socket", str(path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdin.write(typed)
    out = await program.stdout.readexactly(len(b"hello\n" + typed)) if typed else b""
    program.stdin.close()
    out += await program.stdout.read()
    return await program.wait(), out, await program.stderr.read()


def test_what_is_printed_and_typed_goes_through_the_daemon(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon, asyncio.timeout(300):
            await daemon.start(definition())
            daemon.host.prints("web", b"heartbeat 1\nheartbeat \xff\n")
            assert await called(daemon.path, "logs", "web") == (0, b"heartbeat 1\nheartbeat \xff\n", b"")
            code, out, err = await called(daemon.path, "console", "web", typed=b"reboot\n")
            assert (code, err, set(out.split())) == (0, b"", {b"hello", b"reboot"})
            code, out, err = await called(daemon.path, "console", "ghost")
            told = b"ghost: there is no such guest; `orchestrator ps` lists those that are\n"
            assert (code, out, err) == (2, b"", told)

    run(story)


def test_a_terminal_leaves_by_a_key_and_is_as_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon, asyncio.timeout(300):
            await daemon.start(definition())
            ours, theirs = pty.openpty()
            before = termios.tcgetattr(theirs)
            program = await asyncio.create_subprocess_exec(
                *(str(PROGRAM), "console", "web", "--socket", str(daemon.path)),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
            )
            read = asyncio.get_running_loop().run_in_executor
            seen = b""
            while b"hello" not in seen:
                seen += await read(None, os.read, ours, 1024)
            os.write(ours, b"\x1d")
            assert await program.wait() == 0
            assert b"attached; Ctrl-] leaves" in seen
            assert termios.tcgetattr(theirs) == before
            os.close(theirs)
            os.close(ours)

    run(story)

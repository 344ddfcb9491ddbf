"""`top` in a real terminal: the program in tmux, through a real socket, to a host in memory."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.functional.program import PROGRAM
from tests.unit.service_daemon import Daemon, daemon_in_a_thread, definition

PATIENCE = 90.0  # seconds until something must be on the screen


@dataclass
class Terminal:
    """A terminal of 80 columns in which `top` runs once it was begun."""

    server: str
    command: str
    environment: dict[str, str]

    def begin(self) -> None:
        size = ("-x", "80", "-y", "24")
        start = ["tmux", "-L", self.server, "-f", "/dev/null", "new-session", "-d", "-s", "top", *size, self.command]
        subprocess.run(start, check=True, env=self.environment, timeout=60)

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.server, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def screen(self, *options: str) -> list[str]:
        return self.tmux("capture-pane", "-p", *options, "-t", "top").splitlines()

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "top", *keys)

    def wait(self, is_so: Callable[[list[str]], object]) -> list[str]:
        """Return the screen as soon as it is so."""
        limit = time.monotonic() + PATIENCE
        while not is_so(shown := self.screen()):
            assert time.monotonic() < limit, "\n".join(shown)
            time.sleep(0.1)
        return shown

    def wait_for(self, pattern: str) -> list[str]:
        return self.wait(lambda shown: re.search(pattern, "\n".join(shown), re.MULTILINE))

    def guests(self, shown: list[str] | None = None) -> list[str]:
        """Return the guests in the order in which they are shown."""
        rows = (line.lstrip("> ").split() for line in shown or self.screen())
        return [row[0] for row in rows if len(row) > 4 and row[2] == "x86_64"]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm-256color"}
    variables = f"ORCHESTRATOR_SOCKET={tmp_path}/socket ORCHESTRATOR_RUNTIME_DIR={tmp_path}/r NO_COLOR=1"
    command = f"{variables} {PROGRAM} top --interval 0.3; echo ended with $?; sleep 600"
    found = Terminal(f"top-{os.getpid()}", command, environment)
    yield found
    subprocess.run(["tmux", "-L", found.server, "kill-server"], check=False, capture_output=True, timeout=60)


def test_it_is_sorted_filtered_resized_and_outlives_guests_and_daemon(terminal: Terminal, tmp_path: Path) -> None:
    with ExitStack() as first:
        daemon, loop = first.enter_context(daemon_in_a_thread(tmp_path))

        def have(act: Coroutine[Any, Any, Any]) -> None:
            asyncio.run_coroutine_threadsafe(act, loop).result(timeout=60)

        have(
            daemon.start(definition("web"), definition("db"), definition("beat", "shared"), definition("job", "shared"))
        )
        terminal.begin()
        shown = terminal.wait_for(r"^> beat ")
        assert terminal.guests(shown) == ["beat", "db", "job", "web"]
        assert all(len(line) <= 80 for line in shown)
        assert re.search(r"^  root +4 +4 +2 ", "\n".join(shown), re.MULTILINE), "the user with two exclusive cores"
        assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38)[;m]", "\n".join(terminal.screen("-e")))

        terminal.press("r")
        terminal.wait(lambda shown: terminal.guests(shown) == ["web", "job", "db", "beat"])
        terminal.press("s", "s")
        terminal.wait_for(r"by state reversed")
        terminal.press("S", "S", "r")
        terminal.press("/", "b", "e", "Enter")
        terminal.wait(lambda shown: terminal.guests(shown) == ["beat"])
        terminal.press("Escape")
        terminal.wait(lambda shown: len(terminal.guests(shown)) == 4)

        terminal.press("j", "p")
        terminal.wait_for(r"^> db .* paused")
        terminal.press("p")
        terminal.wait_for(r"^> db .* runni")
        terminal.press("e")
        terminal.wait_for(r"it is exclusive: cores 3 are its own")
        terminal.press("x")

        terminal.tmux("resize-window", "-t", "top", "-x", "110", "-y", "12")
        wide = terminal.wait_for(r"^> db ")
        terminal.wait(lambda shown: len(shown) == 12 and max(map(len, shown)) > 80)
        assert "q quit" in wide[-1] or "q quit" in terminal.screen()[-1]
        terminal.tmux("resize-window", "-t", "top", "-x", "60", "-y", "24")
        terminal.wait(lambda shown: 0 < max(map(len, shown)) <= 60 and terminal.guests(shown))
        terminal.tmux("resize-window", "-t", "top", "-x", "80", "-y", "24")

        async def dies() -> None:
            await daemon.client.act("kill", "db")
            await daemon.client.remove("db")

        have(dies())
        terminal.wait_for(r"db is gone")
        assert terminal.guests() == ["beat", "job", "web"]
        terminal.wait_for(r"^> job ")
    terminal.wait_for(r"OLD: the daemon does not answer")
    assert terminal.guests() == ["beat", "job", "web"], "what was seen last stays"
    with daemon_in_a_thread(tmp_path) as (again, loop):
        asyncio.run_coroutine_threadsafe(again.start(definition("new")), loop).result(timeout=60)
        shown = terminal.wait_for(r"^> new ")
        assert "OLD" not in shown[0]
        assert isinstance(again, Daemon)
        terminal.press("q")
        terminal.wait_for(r"^ended with 0")

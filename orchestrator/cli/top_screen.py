"""The screen of `orchestrator top`: looks at the daemon now and then, draws, and reads keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live

from orchestrator.cli.top_keys import Ask, Mode, State, press, settle
from orchestrator.cli.top_view import lines
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.wiring.top import Source

_ESCAPES = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}
_NAMED = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape", "\x03": "ctrl-c"}
_NOTHING: Mapping[str, Any] = {"cores": [], "guests": [], "users": [], "quotas": [], "fairness": None}


class Screen:
    """The terminal between `interval` looks at the daemon: what is seen is as old as the last one that answered."""

    def __init__(self, source: Source, interval: float) -> None:
        self._source = source
        self._interval = interval
        self._overview = _NOTHING
        self._state = State()
        self._stale = False
        self._stir = asyncio.Event()
        self._ended = False
        self._acts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Show until the user has seen enough. Raises what the first look raises."""
        self._overview = await self._source.overview()
        self._state = settle(self._overview, self._state)
        loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
        console = Console()
        with _keys_at_once(descriptor), Live(console=console, screen=True, auto_refresh=False) as live:
            loop.add_reader(descriptor, self._read, descriptor)
            loop.add_signal_handler(signal.SIGWINCH, self._stir.set)
            looking = asyncio.create_task(self._look())
            try:
                while not self._ended:
                    self._draw(live, console)
                    self._stir.clear()
                    await self._stir.wait()
            finally:
                loop.remove_reader(descriptor)
                loop.remove_signal_handler(signal.SIGWINCH)
                looking.cancel()
                await asyncio.gather(looking, *self._acts, return_exceptions=True)

    def _draw(self, live: Live, console: Console) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        console.size = (size.columns, size.lines)
        loads = self._source.loads()
        shown = lines(self._overview, loads, self._state, size.columns, size.lines, stale=self._stale)
        live.update(Group(*shown), refresh=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                self._overview = await self._source.overview()
                self._stale = False
            except OrchestratorError:
                self._stale = True  # it may come back
            self._source.measure()
            self._state = settle(self._overview, self._state)
            self._stir.set()

    def _read(self, descriptor: int) -> None:
        text = os.read(descriptor, 1024).decode("utf-8", "replace")
        if not text:
            self._ended = True
        for key in keys(text):
            self._state, ask = press(self._overview, self._state, key)
            if ask is not None:
                self._obey(ask)
        self._stir.set()

    def _obey(self, ask: Ask) -> None:
        if ask.what == "quit":
            self._ended = True
            return
        task = asyncio.create_task(self._carry_out(ask))
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    async def _carry_out(self, ask: Ask) -> None:
        try:
            if ask.what == "explain":
                told = await self._source.explain(ask.guest)
                self._state = replace(self._state, mode=Mode.EXPLAIN, reason=tuple(told))
            else:
                await self._source.act(ask.what, ask.guest)
                self._state = replace(self._state, said=f"{ask.guest}: {ask.what}d")
                self._overview = await self._source.overview()
        except OrchestratorError as error:
            self._state = replace(self._state, said="; ".join(error.lines()))
        self._stir.set()


def keys(text: str) -> Iterator[str]:
    """Yield the keys that a terminal has sent, by name where they are no characters."""
    place = 0
    while place < len(text):
        sequence = next((each for each in _ESCAPES if text.startswith(each, place)), None)
        if sequence is not None:
            yield _ESCAPES[sequence]
            place += len(sequence)
        else:
            yield _NAMED.get(text[place], text[place])
            place += 1


@contextmanager
def _keys_at_once(descriptor: int) -> Iterator[None]:
    """Have each key as it is pressed, and none shown."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

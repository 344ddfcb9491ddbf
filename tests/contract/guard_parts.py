"""The guard's parts as its contract tests use them, and processes that look like guests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.core.consoles import Process
from orchestrator.core.emergency import Standing
from orchestrator.guard.acts import Acts, Surroundings
from orchestrator.guard.callers import Caller
from orchestrator.guard.guests import Guests
from orchestrator.guard.ledger import Ledger
from orchestrator.ports import Journal
from tests.fakes.reserve import FakeReserve

MARK = f"a mark that no other process has, {os.getpid()}"
UUID = "33333333-3333-4333-8333-333333333333"
PATIENCE = 60.0


@contextmanager
def lookalike(name: str = "web", mark: str = MARK) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps, with the arguments of a guest of ours."""
    program = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    arguments = ["-name", f"guest={name},debug-threads=on", "-uuid", UUID, "-mon", mark]
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        try:
            yield process
        finally:
            process.kill()


def guests(owner: str = "eve") -> Guests:
    return Guests(MARK, lambda _name, _uuid: owner)


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


INIT = Process(pid=1, parent=0, session=1, terminal=0, began=1, uid=0, effective=0, program="init")
SHELL = replace(INIT, pid=60, parent=1, session=60, terminal=4 << 8 | 1, program="bash")
ROOT_AT_CONSOLE = Caller(60, 0, (SHELL, INIT), remote=False)
IN_A_PTY = Caller(61, 0, (replace(SHELL, terminal=136 << 8), INIT), remote=False)


def clock() -> int:
    return 5_000_000_000


SURROUNDINGS = Surroundings(wall=clock, consoles=tuple, reserved=frozenset({0, 1}), heart=lambda: "alive")


@contextmanager
def acts_on(found: Guests, journal: Journal, reserve: FakeReserve | None = None) -> Iterator[Acts]:
    with writing(Ledger(journal, reserve or FakeReserve(), clock, limit=PATIENCE)) as ledger:
        yield Acts(ledger, found, Standing(), SURROUNDINGS)


@contextmanager
def writing(ledger: Ledger) -> Iterator[Ledger]:
    """Have a ledger write, until what it has has been written."""
    thread = threading.Thread(target=ledger.run)
    thread.start()
    try:
        yield ledger
    finally:
        ledger.stop()
        thread.join()

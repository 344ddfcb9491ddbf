"""Chores with a real process, in a directory of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.chores.launcher import ChoresProcess, start_chores


def until(condition: Callable[[], object]) -> None:
    """Return when this is so; that it never comes about is the failure."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def ended(pid: int) -> None:
    """Return when a process that need not be our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


def records(path: Path) -> list[Any]:
    """Return what a log of JSON lines holds."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def chores(directory: Path, **rules: int) -> Iterator[ChoresProcess]:
    """Start chores that keep batches briefly, and end them, whatever the test did to them."""
    process = start_chores(directory, **{"batch_patience": 5_000_000, "poll": 10_000_000, **rules})
    try:
        yield process
    finally:
        process._process.send_signal(signal.SIGCONT)  # if it is there still
        process.stop()

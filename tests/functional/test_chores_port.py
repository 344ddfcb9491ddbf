"""The Chores port: the fake and the real process agree."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from orchestrator.chores.launcher import ChoresProcess
from orchestrator.ports import Chores
from tests.fakes.chores import FakeChores
from tests.functional.chores_side import chores, records, until

QUEUE = 50


class Side(Protocol):
    """Chores, and ways to keep their process from working, and to see what came of it."""

    chores: Chores

    def stall(self) -> None: ...

    def go_on(self) -> None: ...

    def kept(self, log: str) -> list[Any]: ...


class FakeSide:
    def __init__(self) -> None:
        self._fake = FakeChores(QUEUE)
        self.chores: Chores = self._fake

    def stall(self) -> None:
        self._fake.stalled = True

    def go_on(self) -> None:
        self._fake.stalled = False

    def kept(self, log: str) -> list[Any]:
        return {"events": self._fake.events, "metrics": self._fake.samples}[log]


class RealSide:
    def __init__(self, process: ChoresProcess, directory: Path) -> None:
        self._process = process
        self._directory = directory
        self.chores: Chores = process.client

    def stall(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kept(self, log: str) -> list[Any]:
        until(lambda: self.chores.health().queue == 0)
        assert self._process.stop()
        return [record for record in records(self._directory / f"{log}.jsonl") if record["kind"] != "chores"]


@contextmanager
def real(directory: Path) -> Iterator[Side]:
    with chores(directory, queue=QUEUE) as process:
        yield RealSide(process, directory)


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == "fake":
        yield FakeSide()
    else:
        with real(tmp_path) as made:
            yield made


def test_records_are_kept_in_order_each_in_its_log(side: Side) -> None:
    for number in range(5):
        side.chores.log({"kind": "start", "number": number, "guest": "wéb", "of": {"cores": [2, 3], "load": 0.5}})
        side.chores.metrics({"kind": "sample", "number": -number})
    until(lambda: side.chores.health().durable == 10)
    health = side.chores.health()
    assert (health.sent, health.dropped, health.queue, health.lost) == (10, 0, 0, 0)
    assert (health.alive, health.trouble) == (True, "")
    assert side.kept("events") == [
        {"kind": "start", "number": number, "guest": "wéb", "of": {"cores": [2, 3], "load": 0.5}} for number in range(5)
    ]
    assert [record["number"] for record in side.kept("metrics")] == [0, -1, -2, -3, -4]


def test_what_finds_the_queue_full_is_counted_and_the_log_says_so_where_it_happened(side: Side) -> None:
    side.stall()
    made = 0
    while side.chores.health().dropped < 7:  # the socket takes some before the queue fills
        side.chores.log({"kind": "start", "number": made, "text": "x" * 10_000})
        made += 1
    assert side.chores.health().queue == QUEUE
    side.go_on()
    until(lambda: side.chores.health().queue == 0)
    side.chores.log({"kind": "start", "number": made})
    until(lambda: side.chores.health().durable == made - 7 + 1)
    health = side.chores.health()
    assert (health.sent, health.dropped, health.lost) == (made - 7 + 1, 7, 0)
    kept = side.kept("events")
    assert [record["kind"] for record in kept] == ["start"] * (made - 7) + ["dropped", "start"]
    assert kept[-2]["count"] == 7
    assert [record["number"] for record in kept if record["kind"] == "start"] == [*range(made - 7), made]

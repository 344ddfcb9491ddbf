"""What the daemon's process needs of its host: to tell the service manager, and to collect garbage in good time."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from orchestrator.host.notify import Notifier
from orchestrator.host.realtime import AlarmClock, Collector


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_is_told(tmp_path: Path, kind: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify") if kind == "path" else "")  # "" has the kernel choose an abstract one
        bound = manager.getsockname()
        environment = {"NOTIFY_SOCKET": bound if isinstance(bound, str) else "@" + bound[1:].decode()}
        notifier = Notifier(environment)
        assert environment == {}, "what is started must not speak for us"
        notifier.ready("two\nlines")
        notifier.reloading()
        notifier.stopping()
        notifier.status("fine")
        told = [manager.recv(4096).decode() for _ in range(4)]
    assert told[0] == "READY=1\nSTATUS=two lines"
    assert told[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert int(told[1].rpartition("=")[2]) > 0
    assert told[2:] == ["STOPPING=1", "STATUS=fine"]


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens-here", "x" * 200])
def test_nobody_who_listens_is_no_error(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).ready("fine")


class Garbage:
    """Collections that seem to take their time; `left` is in how many seconds something is due."""

    def __init__(self) -> None:
        self.left: float | None = None
        self.collected: list[int] = []
        self.took = 0.0

    def collector(self, patience: int = 5) -> Collector:
        return Collector(lambda: self.left, self._collect, clock=lambda: self._now, patience=patience)

    _now = 0.0

    def _collect(self, generation: int) -> None:
        self.collected.append(generation)
        self._now += self.took


def test_garbage_is_collected_while_nothing_is_due() -> None:
    garbage = Garbage()
    collector = garbage.collector()
    for _ in range(200):
        collector.look()
    assert {each: garbage.collected.count(each) for each in (0, 1, 2)} == {0: 180, 1: 18, 2: 2}


def test_a_collection_that_would_not_be_done_in_time_is_put_off_but_not_for_ever() -> None:
    garbage = Garbage()
    collector = garbage.collector()
    garbage.took = 0.010
    collector.look()  # now it is known how long it takes
    garbage.left = 0.019
    assert [collector.look() for _ in range(6)] == [None] * 5 + [0]
    garbage.left = 0.021
    assert [collector.look() for _ in range(2)] == [0, 0]


def test_an_old_generation_that_was_put_off_is_collected_first_when_there_is_time() -> None:
    garbage = Garbage()
    collector = garbage.collector(patience=100)
    garbage.took = 0.010
    for _ in range(19):
        collector.look()
    garbage.left = 0.001
    assert [collector.look() for _ in range(3)] == [None] * 3  # the twentieth is the first generation's
    garbage.left = None
    assert [collector.look() for _ in range(2)] == [1, 0]


def test_the_clock_knows_when_the_next_sleeper_wakes() -> None:
    async def story() -> None:
        clock = AlarmClock()
        assert clock.left() is None
        late, soon = (asyncio.create_task(clock.sleep(seconds)) for seconds in (1000, 10))
        await asyncio.sleep(0)
        left = clock.left()
        assert left is not None
        assert 9 < left <= 10
        soon.cancel()
        await asyncio.gather(soon, return_exceptions=True)
        left = clock.left()
        assert left is not None
        assert left > 900
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert clock.left() is None

    asyncio.run(story())

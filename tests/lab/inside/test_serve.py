"""`orchestrator serve` with real guests: they take turns under it, outlive it, and are taken over by the next one.

Starting a guest or a program costs many seconds here, so one story carries all the checks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.looking import (
    Observer,
    allowed_cores,
    ask,
    command,
    emulators,
    eventually,
    guests,
    heartbeats,
    process,
)
from tests.lab.inside.servers import Serve, Servers

NAMES = ("heartbeat-aarch64", "heartbeat-armv7l", "heartbeat-i386")
SOCKET = Path("/run/orchestrator/api/socket")
NOBODY = 65534


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.clear()


def test_guests_take_turns_under_a_daemon_outlive_it_and_are_taken_over(servers: Servers) -> None:
    serve = servers.start()
    check_its_own_threads(serve.process.pid)
    started = command("start", *(f"domains/{name}.toml" for name in NAMES))
    assert started.code == 0, started.err
    with Observer() as observer:
        eventually(lambda: all(heartbeats(name) > 0 for name in NAMES), "three guests on two cores beat")
        seen = guests()
        assert set(seen) == set(NAMES)
        assert "waiting" in {guest["state"] for guest in seen.values()} <= {"running", "waiting"}
        assert {os.sched_getscheduler(guest["pid"]) for guest in seen.values()} == {os.SCHED_OTHER}
        check_explanations(seen)
        check_pause()
        check_events()
        check_what_others_may_do()
        check_reload(serve)
        farewell = serve.end()
        assert all(name in farewell for name in NAMES), farewell
        assert "left running: " in farewell
        assert {guest["pid"] for guest in guests().values()} == {guest["pid"] for guest in seen.values()}
        again = servers.start()
        assert {name: guest["pid"] for name, guest in guests().items()} == {
            name: guest["pid"] for name, guest in seen.items()
        }
        before = {name: heartbeats(name) for name in NAMES}
        eventually(lambda: all(heartbeats(name) > before[name] for name in NAMES), "all have had a turn again")
    assert observer.violations == []
    assert observer.samples > 50
    check_the_end(again)


def check_its_own_threads(pid: int) -> None:
    """All of them stay on core 0, before all others; what waits for nothing is locked."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    assert len(tasks) > 2
    assert {frozenset(allowed_cores(task)) for task in tasks} == {frozenset({0})}
    assert os.sched_getscheduler(pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    status = Path(f"/proc/{pid}/status").read_text()
    locked = next(line for line in status.splitlines() if line.startswith("VmLck:"))
    assert int(locked.split()[1]) > 0


def check_explanations(seen: dict[str, Any]) -> None:
    told = {name: ask("explain", name) for name in seen}
    assert {each["owner"] for each in told.values()} == {"root"}
    waiting = [each for each in told.values() if each["state"] == "waiting"]
    assert waiting or {each["state"] for each in told.values()} == {"running"}  # a hand-over came in between
    for each in waiting:
        assert each["reasons"]
        assert each["holders"]


def check_pause() -> None:
    name = NAMES[0]
    assert command("pause", name).code == 0
    assert ask("explain", name)["state"] == "paused"
    before, others = heartbeats(name), {other: heartbeats(other) for other in NAMES[1:]}
    eventually(lambda: all(heartbeats(other) > beats for other, beats in others.items()), "the others go on")
    assert heartbeats(name) == before
    assert command("resume", name).code == 0
    eventually(lambda: heartbeats(name) > before, "it goes on")


def check_events() -> None:
    told = [json.loads(line) for line in command("events", "--json").out.splitlines()]
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    began = [event for event in told if event["what"] == "turn began"]
    assert {event["guest"] for event in began} == set(NAMES)
    assert {core for event in began for core in event["cores"]} == {2, 3}


def check_what_others_may_do() -> None:
    """A second daemon is told who is there; another user sees no guest and touches none."""
    second = process("serve")
    assert second.code == 3
    assert "another scheduler runs on this host: process " in second.err
    assert as_nobody("GET", "/v1/guests") == (200, {"guests": []})
    status, told = as_nobody("POST", f"/v1/guests/{NAMES[0]}/stop")
    assert (status, told["error"], told["exit_code"]) == (403, "forbidden", 3)


def as_nobody(method: str, path: str) -> tuple[int, Any]:
    """Ask the daemon as another user, in a child that has become him: the kernel says who he is."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(SOCKET))
                connection.sendall(f"{method} {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
                while data := connection.recv(65536):
                    os.write(writing, data)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    os.waitpid(child, 0)
    return int(head.split()[1]), json.loads(body)


def check_reload(serve: Serve) -> None:
    serve.process.send_signal(signal.SIGHUP)
    serve.tells("reload: policies/lab.toml: nothing has changed")


def check_the_end(serve: Serve) -> None:
    assert ask("stop", "--all") == {"stopped": sorted(NAMES)}
    assert {guest["state"] for guest in guests().values()} == {"stopped"}
    assert emulators() == []
    assert {core["holder"] for core in ask("cores")["cores"]} == {None}
    assert command("rm", *NAMES).code == 0
    assert guests() == {}
    assert serve.end() == "ended; no guest runs"
    assert not SOCKET.exists()

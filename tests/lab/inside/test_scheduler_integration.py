"""`orchestrator serve` with real guests that take turns under it; nothing here disturbs their rotation."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from tests.lab.inside.crowd import Crowd
from tests.lab.inside.looking import allowed_cores, ask, command, guests, process
from tests.lab.inside.servers import POLICY, SOCKET, events

NOBODY = 65534


def test_its_own_threads_stay_on_core_0_before_all_others(crowd: Crowd) -> None:
    pid = crowd.serve.process.pid
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    assert len(tasks) > 2
    assert {frozenset(allowed_cores(task)) for task in tasks} == {frozenset({0})}
    assert os.sched_getscheduler(pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    status = Path(f"/proc/{pid}/status").read_text()
    locked = next(line for line in status.splitlines() if line.startswith("VmLck:"))
    assert int(locked.split()[1]) > 0
    assert {os.sched_getscheduler(guest["pid"]) for guest in guests().values()} == {os.SCHED_OTHER}


def test_exclusive_guests_keep_their_cores_and_the_others_share_what_is_left(crowd: Crowd) -> None:
    seen = guests()
    exclusive = {name for name, member in crowd.members.items() if member.mode == "exclusive"}
    own = {core for name in exclusive for core in seen[name]["cores"]}
    assert len(own) == len(exclusive)
    began = [event for event in events() if event["what"] == "turn began" and event["guest"] not in exclusive]
    assert {core for event in began for core in event["cores"]} == {2, 3, 4, 5, 6, 7} - own
    assert {len(event["cores"]) for event in began} == {1, 2, 3}


def test_events_are_numbered_without_a_gap(crowd: Crowd) -> None:
    told = events()
    assert [event["seq"] for event in told] == list(range(told[0]["seq"], told[0]["seq"] + len(told)))
    assert {event["guest"] for event in told if event["what"] == "turn began"} == set(crowd.members)


def test_what_others_may_do(crowd: Crowd) -> None:
    """A second daemon is told who is there; another user sees no guest and touches none."""
    second = process("serve")
    assert second.code == 3
    assert f"another scheduler runs on this host: process {crowd.serve.process.pid} " in second.err
    assert as_nobody("GET", "/v1/guests") == (200, {"guests": []})
    status, told = as_nobody("POST", f"/v1/guests/{crowd.one('armv7l')}/stop")
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


def test_the_policy_is_read_anew(crowd: Crowd) -> None:
    crowd.serve.process.send_signal(signal.SIGHUP)
    crowd.serve.tells(f"reload: {POLICY}: nothing has changed")


def test_more_exclusive_cores_than_there_are_left_are_refused(crowd: Crowd, tmp_path: Path) -> None:
    greedy = tmp_path / "greedy.toml"
    model = tmp_path / next(iter(crowd.members.values())).write(tmp_path)
    greedy.write_text(model.read_text().replace("vcpus = 1", "vcpus = 4").replace('name = "', 'name = "greedy-'))
    refused = command("start", str(greedy))
    assert refused.code == 3
    assert "pool cores left" in refused.err
    assert set(guests()) == set(crowd.members)


def test_who_waits_is_told_why_and_until_when(crowd: Crowd) -> None:
    told = [ask("explain", member.name) for member in crowd.shared[:6]]
    assert {each["owner"] for each in told} == {"root"}
    waiting = [each for each in told if each["position"] is not None]
    assert waiting, told
    for each in waiting:
        assert each["state"] == "waiting"
        assert each["reasons"]
        assert each["latest"] > 0

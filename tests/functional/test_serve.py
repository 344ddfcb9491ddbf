"""`orchestrator serve` as a process, as far as a host without a pool goes; that guests run under it is in tests/lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from orchestrator.ports import EVENTS_THREAD
from tests.functional.program import Program


def test_a_host_without_a_pool_is_told_so_and_nothing_is_left(program: Program) -> None:
    outcome = program("serve", "--policy", "none.toml")
    assert (outcome.code, outcome.out) == (4, "")
    (line,) = outcome.lines
    assert line.startswith("this host has no pool core: guests need cores beside 0 (scheduler) and 1 (service)")
    assert program.started() == set()


@pytest.mark.parametrize(
    "command",
    [
        ["start", "guest.toml"],
        ["pause", "beat"],
        ["resume", "beat"],
        ["restart", "beat"],
        ["rm", "beat"],
        ["show", "beat"],
        ["explain", "beat"],
        ["events"],
    ],
    ids=lambda command: str(command[0]),
)
def test_what_needs_a_scheduler_says_so_where_none_runs(program: Program, command: list[str]) -> None:
    outcome = program(*command)
    told = f"{command[0]}: no scheduler runs here, and this needs one; `orchestrator serve` starts it"
    assert (outcome.code, outcome.out, outcome.lines) == (4, "", [told])


def test_without_a_scheduler_guests_can_still_be_looked_for_and_ended(program: Program) -> None:
    assert program.json("ps") == {"guests": []}
    assert {core["held"] for core in program.json("cores")["cores"]} == {False}
    outcome = program("kill", "ghost")
    assert (outcome.code, outcome.lines) == (2, ["kill: no guest is called ghost; `orchestrator ps` lists them"])


def test_a_socket_that_was_named_and_is_not_there_is_not_passed_over(program: Program) -> None:
    outcome = program("ps", ORCHESTRATOR_SOCKET="gone")
    told = ["gone: no daemon listens there; `orchestrator serve --socket gone` starts one"]
    assert (outcome.code, outcome.lines) == (4, told)


PROBE = """
import ctypes, json, os, subprocess, sys, threading
from orchestrator.host import hypervisor, realtime
end = threading.Event()
threading.Thread(target=end.wait).start()
libc = ctypes.CDLL(None)
assert libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None) == 0  # libvirt's are made so
hypervisor._turn_event_loop()
realtime.pin_to(0)
notes = [realtime.go_before_others(), realtime.lock_memory()]
child = "import json, os; print(json.dumps([os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))]))"
told = {
    "notes": notes,
    "affinity": [sorted(os.sched_getaffinity(int(tid))) for tid in os.listdir("/proc/self/task")],
    "classes": {each.name: os.sched_getscheduler(each.native_id) for each in threading.enumerate()},
    "all": [os.sched_getscheduler(int(tid)) for tid in os.listdir("/proc/self/task")],
    "child": json.loads(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout),
}
end.set()
print(json.dumps(told))
"""


def test_every_thread_but_libvirts_goes_to_its_class_and_nothing_that_is_started_inherits_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert told["affinity"] == [[0]] * 4
    assert told["all"].count(os.SCHED_OTHER) >= 2
    assert told["classes"].pop(EVENTS_THREAD) == os.SCHED_OTHER
    assert told["child"] == [os.SCHED_OTHER, [0]]
    if told["notes"][0]:
        assert told["notes"][0].startswith("not in a real-time class (SCHED_FIFO): ")
        assert set(told["classes"].values()) == {os.SCHED_OTHER}
    else:
        assert list(told["classes"].values()) == [os.SCHED_FIFO | os.SCHED_RESET_ON_FORK] * 2
    assert told["notes"][1] == "" or told["notes"][1].startswith("memory is not locked: ")

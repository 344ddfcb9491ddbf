"""The guard while everything else is in trouble: its console still ends guests, and obeys nobody from anywhere else."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.wiring import journals
from tests.at_console import Guard, Killer, Shell, bare, records
from tests.from_elsewhere import check_who_is_obeyed
from tests.lab.inside.looking import ORCHESTRATOR, ROOT, ask, command, eventually, guests, says
from tests.lab.inside.servers import SOCKET as API
from tests.lab.inside.servers import Serve, Servers
from tests.troubles import full, spinning, stopped

POOL = (2, 3, 4)
RUNTIME = Path("/run/orchestrator")
CONSOLE, OTHER_CONSOLE = "/dev/ttyS0", "/dev/tty2"
BARE = "sched-stopped", "disk-full", "spinners", "no-forks"
GUEST = """
name = "{name}"
architecture = "i386"
vcpus = 1
memory = "32 MiB"
mode = "exclusive"
on_crash = "restart"
[boot]
payload = "{payload}"
"""
THREADS = Path("/proc/sys/kernel/threads-max")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder on a small disk of its own."""
    folder = tmp_path_factory.mktemp("state")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "state", str(folder)], check=True)
    os.environ["ORCHESTRATOR_STATE_DIR"] = str(folder)
    yield folder
    del os.environ["ORCHESTRATOR_STATE_DIR"]
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def guard(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:  # noqa: ARG001
    made = Guard(tmp_path_factory.mktemp("guard") / "log")
    yield made
    made.end()


def test_nobody_is_obeyed_but_at_a_console(guard: Guard, state: Path, tmp_path: Path) -> None:  # noqa: ARG001
    check_who_is_obeyed(RUNTIME, state, OTHER_CONSOLE, tmp_path)


# What goes wrong meanwhile.


@contextlib.contextmanager
def forever() -> Iterator[None]:
    """Have the kernel let real-time processes run for ever."""
    runtime = Path("/proc/sys/kernel/sched_rt_runtime_us")
    before = runtime.read_text()
    runtime.write_text("-1")
    try:
        yield
    finally:
        runtime.write_text(before)


@contextlib.contextmanager
def no_forks() -> Iterator[None]:
    before = THREADS.read_text()
    THREADS.write_text("20")  # the least there may be; fewer than there are
    try:
        with pytest.raises(BlockingIOError) as refused:
            os.fork()
        assert refused.value.errno == errno.EAGAIN
        yield
    finally:
        THREADS.write_text(before)


def started(servers: Servers, tmp_path: Path, *names: str) -> Serve:
    serve = servers.start()
    payload = ROOT / "domains/build/heartbeat-i386.elf"
    for name in names:
        definition = tmp_path / f"{name}.toml"
        definition.write_text(GUEST.format(name=name, payload=payload))
        done = command("start", str(definition))
        assert done.code == 0, done.err
    return serve


def test_a_guest_is_ended_whatever_else_goes_wrong(guard: Guard, state: Path, tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    processes = {name: bare(name, number, POOL[number % 3], RUNTIME) for number, name in enumerate(BARE)}
    shell = Shell(CONSOLE)
    try:
        serve = started(servers, tmp_path, "plain", "all-at-once")
        kill = Killer(shell, state, processes)
        kill("plain")
        is_over(serve, "plain")
        noticed = check_one_by_one(guard, serve, state, kill)
        with stopped(serve.process.pid), full(state), forever(), spinning(POOL), no_forks():
            kill("all-at-once")
        is_over(serve, "all-at-once")
        says(
            *(f"guard: kill, {what}: {milliseconds:.1f} ms" for what, milliseconds in kill.took.items()),
            f"guard: a scheduler that hangs was told of within {noticed:.1f} s, by a test that looks each second",
        )
        check_the_other_acts(shell, serve, tmp_path)
        assert [(each.name, each.is_whole) for each in journals.verify_own()] == [("journal", True), ("guard", True)]
        kinds = [json.loads(line)["kind"] for line in (state / "journal.jsonl").read_bytes().splitlines()]
        assert "guard" in kinds  # the head of the guard's journal stands in the scheduler's
        assert "refused" in kinds
    finally:
        shell.end()
        servers.clear()
        for process in processes.values():
            process.kill()
            process.wait()


def is_over(serve: Serve, name: str) -> None:
    """The scheduler knows that it was killed, has its cores back, and does not start it anew."""
    serve.tells(f"the emergency console: kill {name}")
    eventually(lambda: guests()[name]["state"] == "stopped", "it is not started anew")
    assert name not in json.dumps(ask("cores"))


def check_one_by_one(guard: Guard, serve: Serve, state: Path, kill: Killer) -> float:
    with stopped(serve.process.pid):
        began, lines = time.monotonic(), len(guard.lines())
        guard.tells("hangs: no heartbeat for ", max(0, lines - 1))
        noticed = time.monotonic() - began
        kill("sched-stopped")
    guard.tells("goes on, after ")
    with full(state):
        kill("disk-full")
    with forever(), spinning(POOL):
        kill("spinners")
    with no_forks():
        kill("no-forks")
    return noticed


def check_the_other_acts(shell: Shell, serve: Serve, tmp_path: Path) -> None:
    # The API has none of this.
    refused = over_the_api("POST", "/v1/admin/kill")
    assert refused[0] == 403
    assert "emergency acts are not the API's" in refused[1]
    # freeze and thaw, of one that the scheduler knows: it is paused by then, and no more.
    definition = tmp_path / "still.toml"
    definition.write_text(GUEST.format(name="still", payload=ROOT / "domains/build/heartbeat-i386.elf"))
    assert command("start", str(definition)).code == 0
    assert shell("freeze still --reason look")["code"] == 0
    eventually(lambda: guests()["still"]["state"] == "paused", "it is paused")
    assert shell("status")["guests"][-1]["frozen"] is True
    assert shell("thaw still --reason enough")["code"] == 0
    eventually(lambda: guests()["still"]["state"] == "running", "it runs again")
    # lockdown: nobody gets anything from the scheduler, root neither; what runs goes on.
    assert shell("lockdown --reason fire")["code"] == 0
    locked = command("stop", "still")
    assert (locked.code, "lockdown by the emergency console: fire" in locked.err) == (3, True), locked
    assert guests()["still"]["state"] == "running"
    assert shell("lockdown --lift --reason out")["code"] == 0
    # A ban bars launches for the user, whoever asks for them.
    assert shell("ban nobody --for 1h --reason coins")["code"] == 0
    other = tmp_path / "banned.toml"
    other.write_text(GUEST.format(name="banned", payload=ROOT / "domains/build/heartbeat-i386.elf"))
    banned = command("start", str(other), "--user", "nobody")
    assert (banned.code, "nobody is banned until " in banned.err) == (3, True), banned
    assert shell("unban nobody --reason gone")["code"] == 0
    # reclaim ends whoever is on a core, and nobody else.
    (core,) = guests()["still"]["cores"][:1]
    reply = shell(f"reclaim {core} --reason mine")
    assert "still" in reply["guests"]
    serve.tells("the emergency console: reclaim ")
    eventually(lambda: guests()["still"]["state"] == "stopped", "it is not started anew")
    assert shell("reclaim 0 --reason mine")["code"] == 2


def over_the_api(method: str, path: str) -> tuple[int, str]:
    with socket.socket(socket.AF_UNIX) as line, contextlib.closing(http.client.HTTPConnection("x")) as connection:
        line.connect(str(API))
        connection.sock = line
        connection.request(method, path, body=b"{}")
        with connection.getresponse() as response:
            return response.status, response.read().decode()


def test_a_scheduler_that_hangs_is_started_anew(guard: Guard, state: Path, tmp_path: Path) -> None:
    guard.end()
    policy = tmp_path / "restarting.toml"
    shutil.copy(ROOT / "policies/default.toml", tmp_path / "default.toml")
    policy.write_text('extends = "default.toml"\n[emergency]\nrestart_after = "5 s"\n')
    log = tmp_path / "guard.log"
    servers = Servers(tmp_path)
    serve = servers.start()
    with log.open("w") as file:
        again = subprocess.Popen([ORCHESTRATOR, "guard", "--policy", str(policy)], stderr=file, cwd=ROOT)
    try:
        eventually(lambda: "is there" in log.read_text(), "the guard feels the heartbeat")
        serve.process.send_signal(signal.SIGSTOP)
        assert serve.process.wait(60) == -signal.SIGKILL
        eventually(lambda: log.read_text().count(" is there") == 2, "another scheduler beats")
        assert records(state)[-1]["kind"] == "restart"
        pid = int(log.read_text().rpartition("(process ")[2].partition(")")[0])
        assert pid != serve.process.pid
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: "has ended" in log.read_text(), "its end is told")
    finally:
        again.terminate()
        again.wait(60)
        servers.clear()

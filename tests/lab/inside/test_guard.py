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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.xml.monitor import OUR_MONITOR
from orchestrator.wiring import journals
from tests.lab.inside.at_console import answer, asking, at, pseudo_terminal, through
from tests.lab.inside.looking import ORCHESTRATOR, ROOT, ask, command, eventually, guests, says
from tests.lab.inside.servers import SOCKET as API
from tests.lab.inside.servers import Serve, Servers

POOL = (2, 3, 4)
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


class Shell:
    """`orchestrator admin` at a console of the lab, started while processes could be."""

    def __init__(self, console: str) -> None:
        self._process = subprocess.Popen(
            at(console, [ORCHESTRATOR, "admin"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self._until_prompt()

    def __call__(self, line: str) -> dict[str, Any]:
        """Type a command, and return what it printed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line} --json\n")
        self._process.stdin.flush()
        said = self._until_prompt()
        assert said.strip().startswith("{"), said
        found: dict[str, Any] = json.loads(said)
        return found

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _until_prompt(self) -> str:
        assert self._process.stdout is not None
        said = ""
        while not said.endswith("admin> "):
            more = os.read(self._process.stdout.fileno(), 65536).decode()
            assert more, said
            said += more
        return said.removesuffix("admin> ")


def bare(name: str, number: int) -> subprocess.Popen[bytes]:
    """Start a QEMU that is a guest of ours to whoever looks at it, on a core of the pool; nobody else knows it."""
    core = POOL[number % len(POOL)]
    monitor = "orchestrator-monitor"
    return subprocess.Popen(
        [
            *("taskset", "-c", str(core)),
            *("qemu-system-i386", "-name", f"guest={name},debug-threads=on"),
            *("-uuid", f"00000000-0000-4000-8000-{number:012}"),
            *("-machine", "none", "-display", "none", "-S", "-nodefaults"),
            *("-chardev", f"socket,id={monitor},path=/run/orchestrator/{name}.sock,server=on,wait=off"),
            *("-mon", OUR_MONITOR),
        ]
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder on a small disk of its own."""
    folder = tmp_path_factory.mktemp("state")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "state", str(folder)], check=True)
    os.environ["ORCHESTRATOR_STATE_DIR"] = str(folder)
    yield folder
    del os.environ["ORCHESTRATOR_STATE_DIR"]
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Guard:
    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen([ORCHESTRATOR, "guard"], stderr=file, cwd=ROOT)
        self.tells("guarding; ")

    def tells(self, what: str, since: int = 0) -> None:
        eventually(lambda: any(what in line for line in self.lines()[since:]), f"the guard says {what!r}")

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(60) == 0


@pytest.fixture(scope="module")
def guard(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:  # noqa: ARG001
    made = Guard(tmp_path_factory.mktemp("guard") / "log")
    yield made
    made.end()


def records(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "guard.jsonl").read_bytes().splitlines()]


# Who is obeyed.


def test_nobody_is_obeyed_but_at_a_console(guard: Guard, state: Path, tmp_path: Path) -> None:  # noqa: ARG001
    request = {"act": "kill", "guests": ["nobody"], "reason": "a try"}
    mine = asking(request)

    def in_pty(environment: dict[str, str] | None = None) -> dict[str, Any]:
        with pseudo_terminal() as terminal:
            return answer(at(terminal, mine), environment)

    def via(name: str) -> dict[str, Any]:
        return answer(at(OTHER_CONSOLE, through(name, mine, tmp_path)))

    forged = {"PATH": os.environ["PATH"], "TTY": "/dev/tty1", "SSH_TTY": "", "XDG_SEAT": "seat0", "XDG_VTNR": "1"}
    tries: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
        ("a pty", in_pty, "which is no console of this machine"),
        ("a forged environment", lambda: in_pty(forged), "which is no console of this machine"),
        ("no terminal", lambda: answer(at("", mine)), "no controlling terminal"),
        ("su", lambda: via("su"), "it comes through su ("),
        ("sudo", lambda: via("sudo"), "it comes through sudo ("),
        ("ssh", lambda: via("sshd"), "it comes from sshd ("),
        ("another user", lambda: answer(at(OTHER_CONSOLE, mine, uid=65534)), "user 65534 is not root"),
    ]
    for number, (who, attempt, why) in enumerate(tries):
        before = len(records(state))
        reply = attempt()
        assert reply["code"] == 3, (who, reply)
        assert why in reply["lines"][0], (who, reply)
        (record,) = records(state)[before:]
        assert (record["kind"], why in record["body"]["why"]) == ("refused", True), (number, record)
    obeyed = answer(at(OTHER_CONSOLE, mine))
    assert (obeyed["code"], "no guest of this host is called nobody" in obeyed["lines"][0]) == (2, True), obeyed


# What goes wrong meanwhile.


@contextlib.contextmanager
def stopped(serve: Serve) -> Iterator[None]:
    """Stop the scheduler, and libvirt's driver, which is a part of it."""
    serve.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        serve.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def full(state: Path) -> Iterator[None]:
    filler = state / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def spinning() -> Iterator[None]:
    """Have every core of the pool spin at SCHED_FIFO, and the kernel not interfere."""
    runtime = Path("/proc/sys/kernel/sched_rt_runtime_us")
    before = runtime.read_text()
    runtime.write_text("-1")
    spinners = []
    for core in POOL:
        pid = os.fork()
        if pid == 0:
            os.sched_setaffinity(0, {core})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
            while True:
                pass
        spinners.append(pid)
    try:
        yield
    finally:
        for pid in spinners:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
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


class Killer:
    """Kills at the console, looks whether it is recorded, and keeps how long it took, in milliseconds."""

    def __init__(self, shell: Shell, state: Path, processes: dict[str, subprocess.Popen[bytes]]) -> None:
        self._shell, self._state, self._processes = shell, state, processes
        self.took: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        before = len(records(self._state))
        reply = self._shell(f"kill {name} --reason {name}")
        assert reply["code"] == 0, reply
        assert "ended; cores " in reply["lines"][0]
        self.took[name] = reply["took_ns"] / 1e6
        (record,) = records(self._state)[before:]
        assert (record["kind"], record["body"]["reason"]) == ("kill", name)
        assert record["body"]["guests"][0]["name"] == name
        if name in self._processes:
            assert self._processes[name].wait(30) == -signal.SIGKILL


def test_a_guest_is_ended_whatever_else_goes_wrong(guard: Guard, state: Path, tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    processes = {name: bare(name, number) for number, name in enumerate(BARE)}
    shell = Shell(CONSOLE)
    try:
        serve = started(servers, tmp_path, "plain", "all-at-once")
        kill = Killer(shell, state, processes)
        kill("plain")
        is_over(serve, "plain")
        noticed = check_one_by_one(guard, serve, state, kill)
        with stopped(serve), full(state), spinning(), no_forks():
            kill("all-at-once")
        is_over(serve, "all-at-once")
        says(
            *(f"guard: kill, {what}: {milliseconds:.1f} ms" for what, milliseconds in kill.took.items()),
            f"guard: a scheduler that hangs was told of within {noticed:.1f} s, by a test that looks each second",
        )
        check_the_other_acts(shell, serve, tmp_path)
        shell.end()
        assert [(each.name, each.is_whole) for each in journals.verify_own()] == [("journal", True), ("guard", True)]
        kinds = [json.loads(line)["kind"] for line in (state / "journal.jsonl").read_bytes().splitlines()]
        assert "guard" in kinds  # the head of the guard's journal stands in the scheduler's
        assert "refused" in kinds
    finally:
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
    with stopped(serve):
        began, lines = time.monotonic(), len(guard.lines())
        guard.tells("hangs: no heartbeat for ", max(0, lines - 1))
        noticed = time.monotonic() - began
        kill("sched-stopped")
    guard.tells("goes on, after ")
    with full(state):
        kill("disk-full")
    with spinning():
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
    assert shell("ban 65534 --for 1h --reason coins")["code"] == 0
    other = tmp_path / "banned.toml"
    other.write_text(GUEST.format(name="banned", payload=ROOT / "domains/build/heartbeat-i386.elf"))
    banned = command("start", str(other), "--user", "nobody")
    assert banned.code != 0
    assert shell("unban 65534 --reason gone")["code"] == 0
    # reclaim ends whoever is on a core, and nobody else.
    (core,) = guests()["still"]["cores"][:1]
    reply = shell(f"reclaim {core} --reason mine")
    assert "still" in reply["guests"]
    serve.tells("the emergency console: reclaim ")
    eventually(lambda: guests()["still"]["state"] == "stopped", "it is not started anew")
    assert shell("reclaim 0 --reason mine")["code"] == 2


def over_the_api(method: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(API))
    connection.request(method, path, body=b"{}")
    response = connection.getresponse()
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

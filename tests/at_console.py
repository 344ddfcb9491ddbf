"""The guard as its tests use it: who knocks at its door, what it is to end, and what goes wrong meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.core.emergency import LATE
from orchestrator.core.xml.monitor import OUR_MONITOR

_PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")

_ASK = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(60)
s.connect(sys.argv[1])
try:
    s.send(sys.argv[2].encode())
except OSError:
    pass
print(s.recv(65536).decode())
"""

_TAKE = """
import fcntl, os, sys, termios
console, uid, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
os.setsid()
if console:
    os.dup2(os.open(console, os.O_RDWR), 9, inheritable=True)
    fcntl.ioctl(9, termios.TIOCSCTTY, 0)
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
os.execvp(command[0], command)
"""


ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
PATIENCE = 300.0


def records(state: Path, more_than: int = -1) -> list[dict[str, Any]]:
    """Return the records of the guard's journal when it has more than so many, but not what it says of slow disks."""
    until = time.monotonic() + PATIENCE
    while True:
        lines = (state / "guard.jsonl").read_bytes().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith(b"\n")]
        acts = [record for record in found if record["kind"] != LATE]
        if len(acts) > more_than:
            return acts
        assert time.monotonic() < until, found
        time.sleep(0.02)


def asking(runtime: Path, request: dict[str, Any]) -> list[str]:
    """Return a command that asks the guard for this, and prints its answer."""
    return [*_PYTHON, _ASK, str(runtime / "guard" / "socket"), json.dumps(request)]


def at(console: str, command: list[str], uid: int = 0) -> list[str]:
    """Return a command that becomes the leader of a session at this terminal, if any, and this user, then that one."""
    return [*_PYTHON, _TAKE, console, str(uid), *command]


def answer(command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command that asks the guard, and return what it was answered."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "{" in done.stdout, done
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    assert done.returncode in (0, found["code"]), done
    return found


class Shell:
    """`orchestrator admin` at a console, started while processes could be."""

    def __init__(self, console: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            at(console, [ORCHESTRATOR, "admin"]),
            env=environment,
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

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Press Ctrl-D; fine if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _until_prompt(self) -> str:
        assert self._process.stdout is not None
        said = ""
        while not said.endswith("admin> "):
            more = os.read(self._process.stdout.fileno(), 65536).decode()
            assert more, said
            said += more
        return said.removesuffix("admin> ")


def bare(name: str, number: int, core: int, runtime: Path) -> subprocess.Popen[bytes]:
    """Start a QEMU that is a guest of ours to whoever looks at it, on this core; no scheduler knows it."""
    monitor = "orchestrator-monitor"
    return subprocess.Popen(
        [
            *("taskset", "-c", str(core)),
            *("qemu-system-i386", "-name", f"guest={name},debug-threads=on"),
            *("-uuid", f"00000000-0000-4000-8000-{number:012}"),
            *("-machine", "none", "-display", "none", "-S", "-nodefaults"),
            *("-chardev", f"socket,id={monitor},path={runtime}/{name}.sock,server=on,wait=off"),
            *("-mon", OUR_MONITOR),
        ]
    )


class Guard:
    """`orchestrator guard`, and what it has told so far."""

    def __init__(
        self, log: Path, *arguments: str, environment: dict[str, str] | None = None, within: Sequence[str] = ()
    ) -> None:
        self.log = log
        with log.open("w") as file:
            command = [*within, ORCHESTRATOR, "guard", *arguments]
            self.process = subprocess.Popen(command, stderr=file, env=environment)
        self.tells("guarding; ")

    def tells(self, what: str, since: int = 0) -> None:
        until = time.monotonic() + PATIENCE
        while not any(what in line for line in self.lines()[since:]):
            assert time.monotonic() < until, (what, self.lines())
            time.sleep(0.05)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(60) == 0


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
        (record,) = records(self._state, more_than=before)[before:]
        assert (record["kind"], record["body"]["reason"]) == ("kill", name)
        assert record["body"]["guests"][0]["name"] == name
        if name in self._processes:
            assert self._processes[name].wait(30) == -signal.SIGKILL

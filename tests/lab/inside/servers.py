"""`orchestrator serve` as the tests in the lab use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.inside.looking import ORCHESTRATOR, ROOT, command, emulators, eventually, process

SOCKET = Path("/run/orchestrator/api/socket")
POLICY = "policies/lab.toml"


@dataclass
class Serve:
    """A daemon, and what it has told so far."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def tells(self, what: str) -> str:
        """Wait until it has told this, and return the line."""

        def told() -> bool:
            ended = self.process.poll()
            assert ended is None, f"ended with {ended} before it told {what!r}: {self.lines}"
            return any(what in line for line in self.lines)

        eventually(told, f"{what!r} among what it tells")
        return next(line for line in self.lines if what in line)

    def end(self) -> str:
        """Send SIGTERM, and return the last line."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=120) == 0, self.lines
        return self.lines[-1]

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Servers:
    """Starts daemons, and ends what is left of them and of guests."""

    def __init__(self, directory: Path, *arguments: str, policy: str = POLICY) -> None:
        self._directory = directory
        self._arguments = ("--policy", policy, *arguments)
        self._started: list[Serve] = []

    def start(self) -> Serve:
        log = self._directory / f"serve-{len(self._started)}.log"
        with log.open("w") as file:
            arguments = [ORCHESTRATOR, "serve", *self._arguments]
            started = subprocess.Popen(arguments, stderr=file, text=True, cwd=ROOT)
        serve = Serve(started, log)
        self._started.append(serve)
        serve.tells("serving on ")
        return serve

    def fails(self) -> tuple[int, list[str]]:
        """Start one that does not come up; return its exit code and what it has told."""
        arguments = [ORCHESTRATOR, "serve", *self._arguments]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
        return done.returncode, done.stderr.splitlines()

    def running(self) -> Serve:
        """Return the daemon that runs; start one if none does."""
        last = self._started[-1] if self._started else None
        return last if last is not None and last.process.poll() is None else self.start()

    def clear(self) -> None:
        if emulators() and any(serve.process.poll() is None for serve in self._started):
            command("stop", "--all")  # no new interpreter is needed for that; what is left is ended below
        for serve in self._started:
            if serve.process.poll() is None:
                serve.kill()
        if emulators():
            process("stop", "--all")


def events(since: int = 0) -> list[Any]:
    """Return what has happened after event number `since`, as the daemon tells it."""
    told = command("events", "--json", "--since", str(since))
    assert told.code == 0, told.err
    return [json.loads(line) for line in told.out.splitlines()]

"""Daemons for the tests in the lab."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.inside.looking import ORCHESTRATOR, ROOT, emulators, eventually, process


@dataclass
class Serve:
    """A daemon, and what it has told so far."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def tells(self, what: str) -> None:
        def told() -> bool:
            ended = self.process.poll()
            assert ended is None, f"ended with {ended} before it told {what!r}: {self.lines}"
            return any(what in line for line in self.lines)

        eventually(told, f"{what!r} among what it tells")

    def end(self) -> str:
        """Send SIGTERM, and return the last line."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=120) == 0, self.lines
        return self.lines[-1]


class Servers:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self) -> Serve:
        log = self._directory / f"serve-{len(self._started)}.log"
        with log.open("w") as file:
            arguments = [ORCHESTRATOR, "serve", "--policy", "policies/lab.toml"]
            started = subprocess.Popen(arguments, stderr=file, text=True, cwd=ROOT)
        self._started.append(started)
        serve = Serve(started, log)
        serve.tells("serving on ")
        return serve

    def fails(self) -> tuple[int, list[str]]:
        """Start one that does not come up; return its exit code and what it has told."""
        arguments = [ORCHESTRATOR, "serve", "--policy", "policies/lab.toml"]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
        return done.returncode, done.stderr.splitlines()

    def clear(self) -> None:
        for started in self._started:
            if started.poll() is None:
                started.kill()
                started.wait()
        if emulators():
            process("stop", "--all")

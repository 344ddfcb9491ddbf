"""The program as its users call it: a process of its own, with a run directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("orchestrator")

GUEST = """\
name = "beat"
architecture = "i386"
vcpus = 1
memory = "64 MiB"

[boot]
payload = "payload.elf"
"""


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


@dataclass(frozen=True)
class Program:
    """The program, called in a directory that holds a good definition, guest.toml, with its payload."""

    directory: Path

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "ORCHESTRATOR_RUNTIME_DIR": str(self.directory / "r"),
            "ORCHESTRATOR_STATE_DIR": str(self.directory / "s"),
            **variables,
        }
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "defect" not in done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, code: int = 0) -> Any:
        outcome = self(*arguments, "--json")
        assert outcome.code == code, outcome.err
        return json.loads(outcome.out)

    def write(self, name: str, text: str | bytes) -> str:
        (self.directory / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return name

    def started(self) -> set[str]:
        """Return what of libvirt and of guests is in the run directory."""
        run = self.directory / "r"
        return {entry.name for entry in run.iterdir()} - {"kvm-probe.json"} if run.exists() else set()

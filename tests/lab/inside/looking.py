"""What the tests in the lab look with. The observer reads /proc itself and shares no code with the engine."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main

ROOT = Path(__file__).parents[3]
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
FIGURE = "figure: "
PATIENCE = 300.0  # seconds until a nested guest must have done what is waited for


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> Done:
    """Run the program in this process: a new interpreter takes up to a minute while guests keep the lab busy."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(arguments)
    return Done(ended.value.code if isinstance(ended.value.code, int) else 0, out.getvalue(), err.getvalue())


def process(*arguments: str) -> Done:
    """Run the program as a process of its own, which what opens libvirt needs: one opener of a root at a time."""
    done = subprocess.run(
        [ORCHESTRATOR, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )
    return Done(done.returncode, done.stdout, done.stderr)


def request(*arguments: str) -> float:
    """Ask a daemon for something, and return how many seconds that took; it may go on after that (exit code 5)."""
    began = time.monotonic()
    done = command(*arguments)
    assert done.code in (0, 5), done.err
    return time.monotonic() - began


def ask(*arguments: str) -> Any:
    done = command(*arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def guests() -> dict[str, Any]:
    return {guest["name"]: guest for guest in ask("ps")["guests"]}


def heartbeats(name: str) -> int:
    """Count in the log file itself: starting a program costs seconds here."""
    try:
        log = Path(f"/run/orchestrator/guests/{name}/serial.log").read_bytes()
    except FileNotFoundError:
        return 0
    return log.count(b"heartbeat ")


def eventually(condition: Callable[[], bool], what: str, runner: subprocess.Popen[str] | None = None) -> None:
    """Wait for it; in vain if the runner has ended, which then tells why."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert runner is None or runner.poll() is None, runner.communicate()
        assert time.monotonic() < limit, f"not within {PATIENCE:g} s: {what}"
        time.sleep(1)


def says(*lines: str) -> None:
    """Tell measured figures; who runs this in the lab passes such lines on."""
    sys.stdout.write("\n" + "".join(f"{FIGURE}{line}\n" for line in lines))
    sys.stdout.flush()


def emulators() -> list[int]:
    """Find QEMU processes by what they execute."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if "/qemu-system-" in str(entry.readlink()):
                found.append(int(entry.parent.name))
    return found


def allowed_cores(task: Path) -> set[int]:
    text = re.search(r"^Cpus_allowed_list:\s*(\S+)", (task / "status").read_text(), re.MULTILINE)
    assert text is not None
    cores: set[int] = set()
    for part in text[1].split(","):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores

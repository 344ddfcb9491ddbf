"""What the tests in the lab look with. The observer reads /proc itself and shares no code with the engine."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main

ROOT = Path(__file__).parents[3]
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
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


class Observer:
    """Samples every thread of every QEMU that carries a guest, from outside.

    A violation is a thread that may run on core 0 or 1, or vCPUs of two guests that both want to run on one core while
    libvirt says that both guests run (QEMU prepares the vCPUs of a guest that is being launched, too). The files are
    read one after the other, so the first vCPU is read again after the second: a hand-over in between is none.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.violations: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            pids = [pid for pid in emulators() if self._is_guest(pid)]
            for pid in pids:
                with contextlib.suppress(OSError):
                    self._look(pid)
            for _ in range(20):
                self._look_for_company(pids)
                self._stop.wait(0.01)

    def _is_guest(self, pid: int) -> bool:
        try:  # libvirt asks QEMUs for their capabilities, too
            return b"guest=" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def _look(self, pid: int) -> None:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                bad = allowed_cores(task) & {0, 1}
                self.samples += 1
                if bad:
                    self.violations.append(f"thread {task.name} of {pid} may run on {sorted(bad)}")

    def _look_for_company(self, pids: list[int]) -> None:
        seen: dict[int, Path] = {}
        for pid in pids:
            for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
                core = wants_to_run_on(task)
                if core is None:
                    continue
                self.samples += 1
                other = seen.setdefault(core, task)
                if other.parent == task.parent or not (runs(other) and runs(task)):
                    continue
                if wants_to_run_on(other) == core:
                    self.violations.append(f"core {core}: {other} and {task} both want to run")


def wants_to_run_on(task: Path) -> int | None:
    """The core of a vCPU thread that runs or could at once; None if it sleeps, or is no vCPU. See proc(5)."""
    try:
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    fields = rest.split()
    return int(fields[36]) if name.startswith("CPU ") and fields[0] == "R" else None


def runs(task: Path) -> bool:
    """Whether libvirt's status file says that the guest behind a thread runs."""
    pid = task.parent.parent.name
    for status in Path("/run/orchestrator/libvirt/run/qemu").glob("*.xml"):
        with contextlib.suppress(OSError):
            head = status.read_text("utf-8", "replace")[:4096]
            if f"pid='{pid}'" in head:
                return "<domstatus state='running'" in head
    return False

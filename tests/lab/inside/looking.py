"""What the tests in the lab look with. The observer reads /proc itself and shares no code with the engine."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
PATIENCE = 150.0  # seconds until a nested guest must have done what is waited for


def orchestrator(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ORCHESTRATOR, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )


def ask(*arguments: str) -> Any:
    done = orchestrator(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def guests() -> dict[str, Any]:
    return {guest["name"]: guest for guest in ask("ps")["guests"]}


def heartbeats(name: str) -> int:
    """Count in the log file itself: starting a program costs seconds here."""
    try:
        log = Path(f"/run/orchestrator/guests/{name}/serial.log").read_bytes()
    except FileNotFoundError:
        return 0
    return log.count(b"heartbeat ")


def eventually(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
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
    """Samples every thread of every QEMU that carries a guest, from outside."""

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
        while not self._stop.wait(0.2):
            for pid in emulators():
                with contextlib.suppress(OSError):
                    self._look(pid)

    def _look(self, pid: int) -> None:
        if b"guest=" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return  # libvirt asking a QEMU for its capabilities
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                bad = allowed_cores(task) & {0, 1}
                self.samples += 1
                if bad:
                    self.violations.append(f"thread {task.name} of {pid} may run on {sorted(bad)}")

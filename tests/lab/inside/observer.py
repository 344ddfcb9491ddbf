"""Watches from outside what guests do: it reads /proc itself, and shares no code with the engine.

The looks at all vCPUs are a small program's (looker.c), since a Python loop over some twenty-five of them takes longer
in the lab than is between two looks. What is here finds the threads for it, and checks where each may run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.inside.looking import allowed_cores, emulators

INTERVAL = 0.01
"""Seconds from one look at all vCPUs to the next, as far as the lab is quick enough for that."""

SEARCH = 2.0
"""Seconds from one search for new processes and threads to the next."""

RESERVED = {0, 1}

_SOURCE = Path(__file__).with_name("looker.c")


@dataclass(frozen=True)
class Seen:
    """What was seen of one guest: for how long it has run, in seconds, and for how long at most it had not."""

    ran: float
    longest_wait: float


@dataclass(frozen=True)
class Report:
    """What the looker has seen: how often it looked, within how many seconds, the guests, and what was wrong."""

    looks: int
    seconds: float
    guests: dict[str, Seen]
    violations: list[str]


def compile_looker(directory: Path) -> Path:
    """Compile the looker into a directory, and return its path."""
    program = directory / "looker"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(_SOURCE)], check=True)
    return program


@contextlib.contextmanager
def looker() -> Iterator[Path]:
    """Give the program: what was compiled where that takes no time, or else what is compiled now."""
    ready = Path(os.environ.get("XDG_CACHE_HOME", "/nonexistent")) / "looker"
    if ready.exists():
        yield ready
        return
    with tempfile.TemporaryDirectory() as directory:
        yield compile_looker(Path(directory))


class Observer:
    """Samples every thread of every QEMU that carries a guest.

    A violation is a thread that may run on core 0 or 1, or what looker.c calls one. `samples` counts the looks at
    single threads. Watching begins and ends with the context; what was seen can be asked for during it, and after.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._violations: list[str] = []
        self._told: Report | None = None
        self._write = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Observer:
        program = self._opened.enter_context(looker())
        self._process = subprocess.Popen(
            [str(program), str(round(INTERVAL * 1e6))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._told = self.report()
        self._process.communicate()
        self._opened.close()

    def report(self) -> Report:
        """Return what was seen until now, or until the end."""
        if self._told is not None:
            return self._told
        self._say("report")
        assert self._process.stdout is not None
        looks, seconds, guests, violations = 0, 0.0, dict[str, Seen](), list[str]()
        for line in self._process.stdout:
            kind, _, rest = line.strip().partition(" ")
            match kind:
                case "looks":
                    looks, seconds = int(rest.split()[0]), float(rest.split()[1])
                case "guest":
                    name, ran, longest = rest.split()
                    guests[name] = Seen(float(ran), float(longest))
                case "violation":
                    violations.append(rest)
                case "end":
                    return Report(looks, seconds, guests, violations)
        raise AssertionError(f"the looker has ended with {self._process.wait()}")

    @property
    def violations(self) -> list[str]:
        """All that was wrong."""
        return [*self._violations, *self.report().violations]

    def _watch(self) -> None:
        os.sched_setaffinity(threading.get_native_id(), {1})
        try:
            while not self._stop.is_set():
                self._search()
                self._stop.wait(SEARCH)
        except Exception as error:  # or nobody would know that nobody searches any more
            self._violations.append(f"the observer failed: {error!r}")
            raise

    def _search(self) -> None:
        """Find the vCPUs that there are now, and check where every thread may run."""
        found: list[str] = []
        for pid in emulators():
            guest = guest_of(pid)
            if guest:
                for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
                    with contextlib.suppress(OSError):  # it has ended
                        found += self._take_in(guest, task)
        self._say(*found, "go")

    def _take_in(self, guest: str, task: Path) -> Iterator[str]:
        bad = allowed_cores(task) & RESERVED
        name = (task / "comm").read_text().strip()
        self.samples += 1
        if bad:
            self._violations.append(f"{guest}: thread {task.name} ({name}) may run on {sorted(bad)}")
        if name.startswith("CPU "):
            yield f"vcpu {guest} {task.parent.parent.name} {task.name} {name.split()[1].split('/')[0]}"

    def _say(self, *lines: str) -> None:
        assert self._process.stdin is not None
        with self._write:
            self._process.stdin.writelines(f"{line}\n" for line in lines)
            self._process.stdin.flush()


def guest_of(pid: int) -> str:
    """Return the guest that a QEMU carries; empty if it carries none, as when libvirt asks for its capabilities."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((each[6:].split(b",")[0].decode() for each in arguments if each.startswith(b"guest=")), "")


def jain(shares: Iterable[float]) -> float:
    """Return Jain's index of fairness: 1 if all are alike, 1/n if one has everything."""
    each = list(shares)
    return sum(each) ** 2 / (len(each) * sum(share * share for share in each))

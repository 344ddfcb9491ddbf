"""Watches from outside what guests do: it reads /proc itself, and shares no code with the engine."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.lab.inside.looking import allowed_cores, emulators

INTERVAL = 0.01
"""Seconds from one look at all vCPUs to the next, as far as the lab is quick enough for that."""

SEARCH = 2.0
"""Seconds from one search for new processes and threads to the next."""

RESERVED = {0, 1}


class Stat(NamedTuple):
    """What the kernel says of a thread: whether it runs or could at once, and the core that it ran on last."""

    wants: bool
    core: int


@dataclass
class Seen:
    """What was seen of one guest: for how long it has run, in seconds, and for how long at most it had not."""

    ran: float = 0.0
    longest_wait: float = 0.0
    last_ran: float = field(default_factory=time.monotonic)


class Vcpu(NamedTuple):
    """A thread that is a vCPU, with its open file."""

    guest: str
    pid: int
    tid: int
    number: int
    file: int


class Observer:
    """Samples every thread of every QEMU that carries a guest.

    A violation is a thread that may run, or has run, on core 0 or 1, or vCPUs of two guests that both want to run on
    one core while libvirt says that both guests run (QEMU prepares the vCPUs of a guest that is being launched, too).
    The files are read one after the other, so the first vCPU is read again after the second: a hand-over in between is
    none. `guests` tells how long each has run; its first vCPU always computes while it does.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.looks = 0
        self.seconds = 0.0
        self.violations: list[str] = []
        self.guests: dict[str, Seen] = {}
        self._vcpus: list[Vcpu] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def interval(self) -> float:
        """Seconds from one look to the next, as it came out."""
        return self.seconds / max(1, self.looks)

    def _watch(self) -> None:
        os.sched_setaffinity(threading.get_native_id(), {1})
        try:
            self._look_on()
        except Exception as error:  # or nobody would know that nobody looks any more
            self.violations.append(f"the observer failed: {error!r}")
            raise
        finally:
            self._close()

    def _look_on(self) -> None:
        began = last = time.monotonic()
        searched = -SEARCH
        while not self._stop.is_set():
            if last - searched >= SEARCH:
                self._search()
                searched = time.monotonic()
            now = time.monotonic()
            self._look(now, now - last)
            last, self.seconds = now, now - began
            self._stop.wait(max(0.0, INTERVAL - (time.monotonic() - now)))

    def _search(self) -> None:
        """Find the vCPUs that there are now, and check where every thread may run."""
        self._close()
        for pid in emulators():
            guest = guest_of(pid)
            if guest:
                for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
                    with contextlib.suppress(OSError):  # it has ended
                        self._take_in(guest, task)

    def _take_in(self, guest: str, task: Path) -> None:
        bad = allowed_cores(task) & RESERVED
        name = (task / "comm").read_text().strip()
        self.samples += 1
        if bad:
            self.violations.append(f"{guest}: thread {task.name} ({name}) may run on {sorted(bad)}")
        if name.startswith("CPU "):
            file = os.open(task / "stat", os.O_RDONLY)
            number = int(name.split()[1].split("/")[0])
            self._vcpus.append(Vcpu(guest, int(task.parent.parent.name), int(task.name), number, file))

    def _look(self, now: float, elapsed: float) -> None:
        """Look at every vCPU once, so long after the last look."""
        self.looks += 1
        seen: dict[int, Vcpu] = {}
        for vcpu in self._vcpus:
            stat = read(vcpu)
            self.samples += 1
            if not stat.wants:
                continue
            if vcpu.number == 0:
                self._note(vcpu.guest, now, elapsed)
            if stat.core in RESERVED:
                self.violations.append(f"{vcpu.guest}: vCPU {vcpu.number} ran on core {stat.core}")
            other = seen.setdefault(stat.core, vcpu)
            if other.pid != vcpu.pid and runs(other.pid) and runs(vcpu.pid) and read(other) == stat == read(vcpu):
                self.violations.append(f"core {stat.core}: {other.guest} and {vcpu.guest} both want to run")

    def _note(self, guest: str, now: float, elapsed: float) -> None:
        seen = self.guests.setdefault(guest, Seen())
        seen.longest_wait = max(seen.longest_wait, now - seen.last_ran - elapsed)
        seen.ran += elapsed
        seen.last_ran = now

    def _close(self) -> None:
        for vcpu in self._vcpus:
            os.close(vcpu.file)
        self._vcpus = []


def read(vcpu: Vcpu) -> Stat:
    """Read what the kernel says of a vCPU now; one that has ended wants nothing. See proc(5)."""
    try:
        stat = os.pread(vcpu.file, 1024, 0)
    except ProcessLookupError:
        return Stat(False, -1)
    tail = stat[stat.rindex(b")") + 2 :]
    return Stat(True, int(tail.split()[36])) if tail.startswith(b"R") else Stat(False, -1)


def guest_of(pid: int) -> str:
    """Return the guest that a QEMU carries; empty if it carries none, as when libvirt asks for its capabilities."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((each[6:].split(b",")[0].decode() for each in arguments if each.startswith(b"guest=")), "")


def runs(pid: int) -> bool:
    """Whether libvirt's status file says that the guest behind a process runs."""
    for status in Path("/run/orchestrator/libvirt/run/qemu").glob("*.xml"):
        with contextlib.suppress(OSError):
            head = status.read_text("utf-8", "replace")[:4096]
            if f"pid='{pid}'" in head:
                return "<domstatus state='running'" in head
    return False


def jain(shares: Iterable[float]) -> float:
    """Return Jain's index of fairness: 1 if all are alike, 1/n if one has everything."""
    each = list(shares)
    return sum(each) ** 2 / (len(each) * sum(share * share for share in each))

"""The kernel's counters of who ran where: /proc, read as a whole now and then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.noise import Look, Running, Side, parse_interrupts, parse_steal

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in include/linux/sched.h


class Counters:
    """Reads a /proc tree. `ours` tells whether a process is the scheduler's or a guest's; `skip` is one left out."""

    def __init__(self, ours: Callable[[int], bool], skip: int, root: Path = Path("/proc")) -> None:
        self._ours = ours
        self._skip = skip
        self._root = root

    def watch(self, seconds: float, every: float = 0.5) -> list[Look]:
        """Look now, every so many seconds, and at the end: twice at least. Blocks."""
        looks = [self.look()]
        until = time.monotonic() + seconds
        while len(looks) < 2 or time.monotonic() < until:
            time.sleep(max(0.0, min(every, until - time.monotonic())))
            looks.append(self.look())
        return looks

    def look(self) -> Look:
        """Return the counters as they are. O(threads), two small files for each."""
        return Look(
            threads=dict(self._threads()),
            interrupts=parse_interrupts((self._root / "interrupts").read_text()),
            softirqs=parse_interrupts((self._root / "softirqs").read_text()),
            steal=parse_steal((self._root / "stat").read_text(), _TICK),
        )

    def allowed(self) -> Iterator[tuple[str, Side, frozenset[int]]]:
        """Yield name, side and cores of each thread: where it may run, whether it does or not."""
        for process, thread in self._all():
            try:
                head, tail = _stat(thread)
                status = (thread / "status").read_text("utf-8", "replace")
            except OSError:
                continue
            where = next(line for line in status.splitlines() if line.startswith("Cpus_allowed_list:"))
            yield head, self._side(process, tail), parse_cpulist(where.split(":", 1)[1])

    def _threads(self) -> Iterator[tuple[str, Running]]:
        for process, thread in self._all():
            try:
                name, fields = _stat(thread)
                ran = int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue  # it has ended
            running = Running(name, self._side(process, fields), int(fields[36]), ran)
            yield f"{thread.name}:{fields[19]}", running

    def _side(self, process: int, fields: list[str]) -> Side:
        if int(fields[6]) & _KERNEL_THREAD:
            return Side.KERNEL
        return Side.OURS if self._ours(process) else Side.FOREIGN

    def _all(self) -> Iterator[tuple[int, Path]]:
        for process in self._root.iterdir():
            if process.name.isdigit() and int(process.name) != self._skip:
                try:
                    threads = list((process / "task").iterdir())
                except OSError:
                    continue
                yield from ((int(process.name), thread) for thread in threads)


def _stat(thread: Path) -> tuple[str, list[str]]:
    """Return the name and the fields from the third on of proc(5)'s stat."""
    head, _, tail = (thread / "stat").read_text("utf-8", "replace").rpartition(")")
    return head.partition("(")[2], tail.split()

"""What makes the scheduler's process answer in time: its core, its class, its memory, and no garbage in between."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator import rooms
from orchestrator.errors import HostError
from orchestrator.ports import EVENTS_THREAD

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # mlockall(2)
_CAP_IPC_LOCK = 14  # capabilities(7)

MAIN_PRIORITY, OTHER_PRIORITY = 20, 10
"""Of the main thread, which hands cores over, and of those that work for it; the kernel's own have 50 and more."""

GUARD_PRIORITY = 30
"""Of the guard's threads."""


def pin_to(core: int) -> None:
    """Let every thread of this process run on this core only, and every thread and process that any of them makes.

    On a host that is shielded it enters the shield first. HostError if the kernel does not let it.
    """
    rooms.enter()
    try:
        for tid in _threads():
            os.sched_setaffinity(tid, {core})
    except OSError as error:
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise HostError(
            f"the scheduler cannot run on core {core}: {error.strerror} (this process may use {allowed}); "
            "start it where that core is not taken away, by a cpuset or otherwise"
        ) from None


def this_thread_first(core: int, priority: int) -> str:
    """Have the calling thread alone run on this core, in SCHED_FIFO at this priority; say why if it is not allowed.

    What it forks is in the normal class again.
    """
    tid = threading.get_native_id()
    try:
        os.sched_setaffinity(tid, {core})
        os.sched_setscheduler(tid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        return f"not before others on core {core} (SCHED_FIFO): {error.strerror}; run as root, or give CAP_SYS_NICE"
    return ""


def go_before_others() -> str:
    """Put every thread of Python's into SCHED_FIFO, but nothing that it starts; say why if it is not allowed.

    What is forked, QEMU above all, is in the normal class again (SCHED_RESET_ON_FORK), and so is a thread that is made
    later: call this anew when there are new ones. Libvirt's stay as they are, that of its events (`EVENTS_THREAD`)
    and those that it makes for each guest: one that waits for another turns round and round, and two of a
    real-time class on one core would do so for minutes.
    """
    for thread in threading.enumerate():
        tid = thread.native_id
        if tid is None or thread.name == EVENTS_THREAD:
            continue
        parameters = os.sched_param(MAIN_PRIORITY if tid == os.getpid() else OTHER_PRIORITY)
        try:
            os.sched_setscheduler(tid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, parameters)
        except ProcessLookupError:
            continue
        except OSError as error:
            return f"not in a real-time class (SCHED_FIFO): {error.strerror}; run as root, or give CAP_SYS_NICE"
    return ""


def lock_memory(*, whole: bool = False) -> str:
    """Keep every page in memory once it is there, or the `whole` of it from now on; say why if it is not allowed.

    Only what has been touched is kept (MCL_ONFAULT): the stacks of many threads are never used whole. With a limit on
    locked memory it is left alone, since with all to come locked too (MCL_FUTURE) every allocation beyond would fail.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and not _may_lock():
        return "memory is not locked: RLIMIT_MEMLOCK limits it; run as root, or give CAP_IPC_LOCK"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | (0 if whole else _MCL_ONFAULT)) != 0:
        return f"memory is not locked: {os.strerror(ctypes.get_errno())}"
    return ""


class AlarmClock:
    """CLOCK_MONOTONIC in seconds, which knows when the next of its sleepers wakes."""

    def __init__(self) -> None:
        self._alarms: dict[object, float] = {}

    def now(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Give way for this many seconds."""
        sleeper = object()
        self._alarms[sleeper] = self.now() + seconds
        try:
            await asyncio.sleep(seconds)
        finally:
            del self._alarms[sleeper]

    def left(self) -> float | None:
        """Return in how many seconds the next sleeper wakes; None if nobody sleeps. Growth: linear in the sleepers."""
        return min(self._alarms.values()) - self.now() if self._alarms else None


class Collector:
    """Collects garbage when nothing is due: what Python would do by itself, in the middle of a hand-over too.

    `due` tells in how many seconds something is, None if nothing is. A generation is collected if it took, the last
    time, at most half of what is left until then; or if that has not come for `patience` looks in a row.
    """

    def __init__(
        self,
        due: Callable[[], float | None],
        collect: Callable[[int], object] = gc.collect,
        *,
        clock: Callable[[], float] = time.perf_counter,
        every: float = 1.0,
        patience: int = 60,
    ) -> None:
        self._due = due
        self._collect = collect
        self._clock = clock
        self._every = every
        self._patience = patience
        self._took = [0.0, 0.0, 0.0]
        self._postponed = [0, 0, 0]
        self._looks = 0

    async def run(self) -> None:
        """Put what there is aside for good, and collect now and then; the collector of Python rests meanwhile."""
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            while True:
                await asyncio.sleep(self._every)
                self.look()
        finally:
            gc.enable()
            gc.unfreeze()

    def look(self) -> int | None:
        """Collect the generation whose time it is, if there is time; return which, or None."""
        self._looks += 1
        generation = 2 if self._looks % 100 == 0 else 1 if self._looks % 10 == 0 else 0
        # What was put off before goes first, the oldest generation above all: it includes the younger.
        generation = max([generation, *(index for index, times in enumerate(self._postponed) if times)])
        left = self._due()
        if left is not None and left < 2 * self._took[generation] and self._postponed[generation] < self._patience:
            self._postponed[generation] += 1
            return None
        began = self._clock()
        self._collect(generation)
        self._took[generation] = self._clock() - began
        for index in range(generation + 1):
            self._postponed[index] = 0
        return generation


def _threads() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _may_lock() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)

"""How long the guard takes from a request to the end of a guest, on a host whose every core is busy.

The guests are QEMU processes that are there and do nothing; the guard's own parts do the rest, on a journal on a disk.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from orchestrator.core.pool import SCHEDULER_CORE
from orchestrator.errors import HostError

if TYPE_CHECKING:
    from orchestrator.guard.acts import Acts
    from orchestrator.guard.guests import Guests

BOUND_MS = 100.0
"""Within so many milliseconds an act takes effect, it is promised."""

_EMULATOR = "qemu-system-x86_64"
_PER_CORE = 3  # processes that keep each core busy
_START_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class GuardReport:
    """Milliseconds from a request to the end of the guest; `journal` is the part until it was durable.

    `busy` are the processes that kept the cores busy, `real_time` says why the guard was not before them, if so.
    """

    rounds: int
    median: float
    p99: float
    worst: float
    journal: float
    late: int
    busy: int
    real_time: str


def measure(rounds: int, progress: Callable[[str, float], None]) -> GuardReport:
    """Kill so many guests, one after the other. HostError without QEMU."""
    with tempfile.TemporaryDirectory() as folder, _busy() as busy:
        took: list[tuple[float, float]] = []
        why: list[str] = []

        def first() -> None:
            from orchestrator.host import realtime

            why.append(realtime.this_thread_first(SCHEDULER_CORE, realtime.GUARD_PRIORITY))
            for number in range(rounds):
                took.append(_kill(parts, f"bench-{number}", Path(folder)))
                progress("guests killed", (number + 1) / rounds)

        with _parts(Path(folder)) as parts:
            thread = threading.Thread(target=first)
            thread.start()
            thread.join()
    if len(took) < rounds:
        raise HostError(f"the guard's bench came to {len(took)} of {rounds} rounds: {_EMULATOR} did not start")
    times = [total for total, _ in took]
    return GuardReport(
        rounds=rounds,
        median=median(times),
        p99=quantiles(times, n=100, method="inclusive")[98],
        worst=max(times),
        journal=median(durable for _, durable in took),
        late=sum(each > BOUND_MS for each in times),
        busy=busy,
        real_time=why[0],
    )


@contextlib.contextmanager
def _parts(folder: Path) -> Iterator[tuple[Acts, Guests, list[int]]]:
    from orchestrator.core.emergency import Standing
    from orchestrator.core.xml.monitor import OUR_MONITOR
    from orchestrator.guard.acts import Acts, Surroundings
    from orchestrator.guard.guests import Guests
    from orchestrator.guard.ledger import Ledger
    from orchestrator.host import realtime
    from orchestrator.host.journal_file import JournalFile
    from orchestrator.host.reserve_file import ReserveFile

    recorded: list[int] = []
    with (
        contextlib.closing(JournalFile(folder / "guard.jsonl", reserve=1 << 20)) as journal,
        contextlib.closing(ReserveFile(folder / "in-memory", 1 << 20)) as in_memory,
    ):
        guests = Guests(OUR_MONITOR, lambda _name, _uuid: "bench", below=str(folder))
        ledger = Ledger(journal, in_memory, time.time_ns, told=lambda _: recorded.append(time.monotonic_ns()))
        around = Surroundings(wall=time.time_ns, consoles=tuple, reserved=frozenset(), heart=str)

        def write() -> None:
            realtime.this_thread_first(SCHEDULER_CORE, realtime.GUARD_PRIORITY)
            ledger.run()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield Acts(ledger, guests, Standing(), around), guests, recorded
        finally:
            ledger.stop()
            writer.join()


def _kill(parts: tuple[Acts, Guests, list[int]], name: str, folder: Path) -> tuple[float, float]:
    """Return after how many milliseconds a guest had ended, and after how many that was durable."""
    from orchestrator.core.consoles import Process
    from orchestrator.core.emergency import Act, Request
    from orchestrator.guard.callers import Caller

    acts, guests, recorded = parts
    console = Process(
        pid=1, parent=0, session=1, terminal=4 << 8 | 1, began=1, uid=0, effective=0, program="a console, for a bench"
    )
    with _guest(name, folder):
        until = time.monotonic() + _START_LIMIT
        while name not in {guest.name for guest in guests.all()}:
            guests.look(all_anew=True)
            if time.monotonic() > until:
                raise HostError(f"{_EMULATOR} does not start here within {_START_LIMIT:g} s")
            time.sleep(0.02)
        began = time.monotonic_ns()
        reply = acts.obey(Caller(1, 0, (console,), remote=False), Request(act=Act.KILL, reason="bench", guests=(name,)))
        took = time.monotonic_ns() - began
        if reply.code:
            raise HostError(f"the guard's bench: {'; '.join(reply.lines)}")
        return took / 1e6, (recorded[-1] - began) / 1e6


@contextlib.contextmanager
def _guest(name: str, folder: Path) -> Iterator[None]:
    from orchestrator.core.xml.monitor import OUR_MONITOR

    chardev = f"socket,id=orchestrator-monitor,path={folder}/{name},server=on,wait=off"
    arguments = ["-machine", "none", "-nodefaults", "-display", "none", "-S", "-chardev", chardev, "-mon", OUR_MONITOR]
    identity = ["-name", f"guest={name},debug-threads=on", "-uuid", "00000000-0000-4000-8000-000000000000"]
    try:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", _EMULATOR, *identity, *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise HostError(f"the guard's bench needs setpriv and {_EMULATOR}: {error.strerror}") from None
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _busy() -> Iterator[int]:
    """Keep every core busy."""
    spinners = [
        subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sh", "-c", "while :; do :; done"])
        for _ in range(_PER_CORE * len(os.sched_getaffinity(0)))
    ]
    try:
        yield len(spinners)
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()

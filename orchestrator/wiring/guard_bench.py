"""How long the guard takes from a request to the end of a guest, while this and that goes wrong, and all of it at once.

Guests are QEMU processes that do nothing, or a scheduler's own that compute in turns; the guard's parts do the rest.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.errors import HostError, OrchestratorError
from orchestrator.wiring import guard_troubles as troubles

if TYPE_CHECKING:
    from orchestrator.core.journal import Head, Record
    from orchestrator.guard.acts import Acts
    from orchestrator.guard.guests import Guests
    from orchestrator.host.journal_file import JournalFile

BOUND_MS = 100.0
"""Within so many milliseconds an act takes effect, it is promised."""

_EMULATOR = "qemu-system-x86_64"
_START_LIMIT = 60.0
_DISK = "8m"


@dataclass(frozen=True, slots=True)
class Wrong:
    """What goes wrong in a case; `stopped` is the scheduler, with libvirt's driver in it."""

    busy: bool = False
    stopped: bool = False
    full: bool = False
    hangs: bool = False
    spins: bool = False
    no_forks: bool = False


CASES: Mapping[str, Wrong] = {
    "nothing": Wrong(),
    "every core is busy": Wrong(busy=True),
    "scheduler and libvirt are stopped": Wrong(stopped=True),
    "the disk is full": Wrong(full=True),
    "the disk hangs": Wrong(hangs=True),
    "the pool spins at SCHED_FIFO": Wrong(spins=True),
    "no more forks": Wrong(no_forks=True),
    "all of it": Wrong(busy=True, stopped=True, full=True, spins=True, no_forks=True),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds from a request to the end of the guest; `recorded` is the part until that was written down.

    `late` counts those beyond `BOUND_MS`.
    """

    wrong: str
    guests: int
    median: float
    worst: float
    recorded: float
    late: int


@dataclass(frozen=True, slots=True)
class GuardReport:
    """All cases that could be measured here; `notes` say which could not, and if the guard was not before others."""

    cases: tuple[Figures, ...]
    notes: tuple[str, ...]


def measure(rounds: int, *, borrow: bool, progress: Callable[[str, float], None]) -> GuardReport:
    """Kill so many guests in each case. HostError if not even the first one can be measured."""
    cases, notes = [], list[str]()
    for number, (what, wrong) in enumerate(CASES.items()):
        progress(what, number / len(CASES))
        try:
            figures, note = _measure(what, wrong, rounds, borrow=borrow)
        except OrchestratorError as error:
            notes.append(f"not measured: {what}: {'; '.join(error.lines())}")
            continue
        cases.append(figures)
        notes += [note] if note and note not in notes else []
    if not cases:
        raise HostError(notes[0])
    return GuardReport(tuple(cases), tuple(notes))


def _measure(what: str, wrong: Wrong, rounds: int, *, borrow: bool) -> tuple[Figures, str]:
    from orchestrator.host.places import runtime_directory

    took: list[tuple[float, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = folder / "disk"
        stack.enter_context(troubles.small_disk(disk, _DISK)) if wrong.full else disk.mkdir()
        hanging = threading.Event() if wrong.hangs else None
        parts = stack.enter_context(_parts(runtime_directory(os.environ) if wrong.stopped else folder, disk, hanging))
        if wrong.stopped:
            from orchestrator.wiring.guard_stage import scheduled

            pid, names = stack.enter_context(scheduled(f"guard-bench-{os.getpid()}", rounds, borrow=borrow))
        else:
            pid, names = 0, stack.enter_context(_guests(rounds, folder))
        _await(parts.guests, names)
        runner = _Runner(lambda: took.extend(_kill(parts, name) for name in names))
        with ExitStack() as meanwhile:
            for trouble in _troubles(wrong, disk, pid):
                meanwhile.enter_context(trouble)
            if hanging is not None:
                meanwhile.callback(hanging.set)
            runner.run()
    totals = [total for total, _ in took]
    late = sum(each > BOUND_MS for each in totals)
    recorded = median(until for _, until in took)
    return Figures(what, len(took), median(totals), max(totals), recorded, late), runner.note


def _troubles(wrong: Wrong, disk: Path, scheduler: int) -> Iterator[contextlib.AbstractContextManager[Any]]:
    """Give what is to go wrong, in an order in which each can still be made to."""
    if wrong.busy:
        yield troubles.busy()
    if wrong.spins:
        yield troubles.spinning(_cores())
    if wrong.stopped:
        yield troubles.stopped(scheduler)
    if wrong.full:
        yield troubles.full(disk)
    if wrong.no_forks:
        yield troubles.no_forks(os.getpid())


def _cores() -> tuple[int, ...]:
    """Return the cores of guests, or the one that is lent where there are none."""
    from orchestrator.core.policy import Policy
    from orchestrator.wiring.site import load_topology

    return tuple(load_topology(Policy()).pool) or (SERVICE_CORE,)


class _Runner:
    """A thread that is there before anything goes wrong, and is the guard's when it does."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._go = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.note = ""

    def run(self) -> None:
        """Have it done, and return when it is; raise what it raised."""
        self._go.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        from orchestrator.host import realtime

        self._go.wait()
        try:
            self.note = realtime.this_thread_first(SCHEDULER_CORE, realtime.GUARD_PRIORITY)
            self._act()
        except BaseException as error:
            self._failed = error


@dataclass(frozen=True, slots=True)
class _Parts:
    """The guard's own; `written` has when each record was written down, in nanoseconds."""

    acts: Acts
    guests: Guests
    written: list[int]


class _Hanging:
    """Implements `ports.Journal` on a disk that does not answer before it is to."""

    def __init__(self, journal: JournalFile, answers: threading.Event) -> None:
        self._journal, self._answers = journal, answers

    @property
    def head(self) -> Head:
        """How far it goes."""
        return self._journal.head

    @property
    def notes(self) -> tuple[str, ...]:
        """What was set aside when it was opened."""
        return self._journal.notes

    def append(self, kind: str, body: Mapping[str, Any], at: int) -> Record:
        """Write a record when the disk answers."""
        self._answers.wait()
        return self._journal.append(kind, body, at)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


@contextmanager
def _parts(below: Path, disk: Path, hanging: threading.Event | None) -> Iterator[_Parts]:
    """Give the guard's parts, which find only guests with files below this folder, and write on this disk."""
    from orchestrator.core.emergency import Standing
    from orchestrator.core.xml.monitor import OUR_MONITOR
    from orchestrator.guard.acts import Acts, Surroundings
    from orchestrator.guard.guests import Guests
    from orchestrator.guard.ledger import Ledger
    from orchestrator.host import realtime
    from orchestrator.host.journal_file import JournalFile
    from orchestrator.host.reserve_file import ReserveFile

    written: list[int] = []
    with (
        contextlib.closing(JournalFile(disk / "guard.jsonl", reserve=1 << 20)) as journal,
        contextlib.closing(ReserveFile(disk / "reserve", 1 << 20)) as reserve,
    ):
        guests = Guests(OUR_MONITOR, lambda _name, _uuid: "bench", below=str(below))
        writes_to = journal if hanging is None else _Hanging(journal, hanging)
        ledger = Ledger(writes_to, reserve, time.time_ns, told=lambda _: written.append(time.monotonic_ns()))
        around = Surroundings(wall=time.time_ns, consoles=tuple, reserved=frozenset(), heart=str)

        def write() -> None:
            realtime.this_thread_first(SCHEDULER_CORE, realtime.GUARD_PRIORITY)
            ledger.run()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield _Parts(Acts(ledger, guests, Standing(), around), guests, written)
        finally:
            ledger.stop()
            writer.join()


def _kill(parts: _Parts, name: str) -> tuple[float, float]:
    """Return after how many milliseconds a guest had ended, and after how many that was written down."""
    from orchestrator.core.consoles import Process
    from orchestrator.core.emergency import Act, Request
    from orchestrator.guard.callers import Caller

    console = Process(
        pid=1, parent=0, session=1, terminal=4 << 8 | 1, began=1, uid=0, effective=0, program="a console, for a bench"
    )
    caller, request = Caller(1, 0, (console,), remote=False), Request(act=Act.KILL, reason="bench", guests=(name,))
    before, began = len(parts.written), time.monotonic_ns()
    reply = parts.acts.obey(caller, request)
    took = time.monotonic_ns() - began
    if reply.code:
        raise HostError(f"the guard's bench: {'; '.join(reply.lines)}")
    return took / 1e6, (parts.written[before] - began) / 1e6


def _await(guests: Guests, names: Sequence[str]) -> None:
    until = time.monotonic() + _START_LIMIT
    while not set(names) <= {guest.name for guest in guests.all()}:
        guests.look(all_anew=True)
        if time.monotonic() > until:
            raise HostError(f"{_EMULATOR} does not start here within {_START_LIMIT:g} s")
        time.sleep(0.02)


@contextmanager
def _guests(count: int, folder: Path) -> Iterator[list[str]]:
    """Have so many QEMUs, on the pool, which end with this process whatever happens to it."""
    processes: list[subprocess.Popen[bytes]] = []
    cores = ",".join(map(str, _cores()))
    try:
        for number in range(count):
            processes.append(_guest(number, folder, cores))
        yield [f"bench-{number}" for number in range(count)]
    except FileNotFoundError as error:
        raise HostError(f"the guard's bench needs {error.filename}") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _guest(number: int, folder: Path, cores: str) -> subprocess.Popen[bytes]:
    from orchestrator.core.xml.monitor import OUR_MONITOR

    chardev = f"socket,id=orchestrator-monitor,path={folder}/{number}.sock,server=on,wait=off"
    arguments = ["-machine", "none", "-nodefaults", "-display", "none", "-S", "-chardev", chardev, "-mon", OUR_MONITOR]
    identity = ["-name", f"guest=bench-{number},debug-threads=on", "-uuid", f"00000000-0000-4000-8000-{number:012}"]
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", cores, _EMULATOR, *identity, *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

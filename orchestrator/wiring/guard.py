"""`orchestrator guard`, put together: two real-time threads on core 0, a third that waits for the disk in their place.

On core 1 one thread tells, another keeps heads: neither disk nor terminal is waited for by the others.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.errors import HostError
from orchestrator.wiring import journals
from orchestrator.wiring.site import embedded_root, load_policy, reserved_cores

if TYPE_CHECKING:
    from orchestrator.guard.ledger import Written
    from orchestrator.host.journal_file import JournalFile
    from orchestrator.host.reserve_file import ReserveFile

Tell = Callable[[str], None]

CHORES_EVERY = 1.0
"""Seconds between two times that the reserve is looked after, and the head kept if it is another one."""

_STACK = 512 * 1024  # of each thread: all of it is locked into memory
_GC_EVERY = 60.0
_IN_MEMORY = 1 << 20
_SHOWN = 200
_END_LIMIT = 5.0  # seconds that the end waits for a disk


def heartbeat_file() -> Path:
    """Return the file in which the scheduler beats."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "heartbeat"


def guard_socket() -> Path:
    """Return where the guard listens."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "guard" / "socket"


def reserve_file() -> Path:
    """Return where the guard keeps records in memory that the disk has not taken yet."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "guard" / "reserve.jsonl"


def guard(policy: Path | None, tell: Tell) -> None:
    """Guard this host until SIGTERM or SIGINT; `tell` is given a line for whatever somebody should know.

    RefusedError if another guard runs, HostError if it cannot be had.
    """
    from orchestrator.guard.starter import Starter
    from orchestrator.host.places import runtime_directory, state_directory
    from orchestrator.host.reserve_file import ReserveFile
    from orchestrator.host.writer_lock import WriterLock

    runtime, state = runtime_directory(os.environ), state_directory(os.environ)
    runtime.chmod(0o711)  # others come to the socket in it, to be refused
    lock = WriterLock(runtime / "guard.lock", "guard")
    starter = Starter()  # before the lock, which a fork would hold too
    try:
        lock.acquire()
        with (
            journals.opened(journals.GUARD, state, reserve=journals.RESERVE) as (journal, witness),
            contextlib.closing(ReserveFile(reserve_file(), _IN_MEMORY)) as reserve,
        ):
            _Guard(policy, tell, starter.start, state, (journal, witness, reserve)).run()
    finally:
        lock.release()
        starter.close()


class _Guard:
    """The threads, and what they have in common."""

    def __init__(
        self,
        policy_file: Path | None,
        tell: Tell,
        start: Callable[..., None],
        state: Path,
        kept: tuple[JournalFile, journals.Witness, ReserveFile],
    ) -> None:
        from orchestrator.core.xml.monitor import OUR_MONITOR
        from orchestrator.guard.acts import Acts, Surroundings
        from orchestrator.guard.console import Console
        from orchestrator.guard.guests import Guests
        from orchestrator.guard.ledger import Before, Ledger
        from orchestrator.guard.watch import Watch
        from orchestrator.host import embed, heartbeat
        from orchestrator.host.guard_book import GuardBook, last_records

        policy = load_policy(policy_file)
        emergency, path = policy.emergency, state / f"{journals.GUARD}.jsonl"
        patience = None if emergency.restart_after is None else emergency.restart_after / 1e9
        self._tell, (self._journal, self._witness, reserve) = tell, kept
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._new_head, self._over, self._heads_trouble = threading.Event(), threading.Event(), ""
        book, root = GuardBook(path, reserve_file()), embedded_root()
        book.news()
        self._ledger = Ledger(
            self._journal,
            reserve,
            time.time_ns,
            before=Before(last_records(path, _SHOWN), reserve.records()),
            upkeep=self._refill,
            told=self._recorded,
        )
        alone = str(root.parent) if os.environ.get("ORCHESTRATOR_RUNTIME_DIR") else ""  # with what is in it
        folders = embed.status_folder(root), embed.SYSTEM_STATUS  # under whichever libvirt a guest runs
        guests = Guests(OUR_MONITOR, lambda name, uuid: embed.owner_of(folders, name, uuid), below=alone)
        reserved = reserved_cores(policy_file)
        around = Surroundings(
            wall=time.time_ns,
            consoles=lambda: emergency.consoles,
            reserved=reserved,
            heart=lambda: self._watch.heard,
        )
        self._acts = Acts(self._ledger, guests, book.standing, around)
        self._console = Console(guard_socket(), self._acts)
        self._watch = Watch(
            guests,
            heartbeat.Listener(heartbeat_file()).last,
            self._news.put,
            reserved,
            record=self._acts.record,
            start=start,
            patience=lambda: patience,
        )
        guests.look(all_anew=True)

    def run(self) -> None:
        """Guard until a signal ends it."""
        from orchestrator import rooms
        from orchestrator.host import realtime

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one for each guest
        sys.setswitchinterval(0.0005)
        threading.stack_size(_STACK)
        why = realtime.lock_memory(whole=True)
        if why:
            self._tell(f"note: {why}")
        gc.collect()
        gc.freeze()
        gc.disable()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._news.put(None))
        core = SCHEDULER_CORE if rooms.enter() else SERVICE_CORE  # a shielded host has no place for both in one process
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})
        above = realtime.GUARD_PRIORITY + 1
        threads = [
            threading.Thread(target=self._first, args=(self._watch.run, realtime.GUARD_PRIORITY), name="watch"),
            threading.Thread(target=self._first, args=(self._console.serve, above), name="console"),
        ]
        disk = [
            threading.Thread(target=self._first, args=(self._ledger.run, above), name="disk", daemon=True),
            threading.Thread(target=self._keep_heads, name="heads", daemon=True),
        ]
        for thread in (*threads, *disk):
            thread.start()
        self._tell(f"guarding; the console is at {guard_socket()}")
        try:
            self._chores()
        finally:
            self._watch.stop()
            self._console.stop()
            for thread in threads:
                thread.join()
            self._console.close()
            self._ledger.stop()
            self._over.set()
            for thread in disk:
                thread.join(_END_LIMIT)
            if self._ledger.owed:
                self._tell(f"{self._ledger.owed} records are not on the disk, but in {reserve_file()}")
            self._tell("ended; guests go on, and nobody guards them")

    def _first(self, act: Callable[[], None], priority: int) -> None:
        from orchestrator.host import realtime

        why = realtime.this_thread_first(SCHEDULER_CORE, priority)
        if why:
            self._news.put(f"note: {threading.current_thread().name}: {why}")
        try:
            act()
        except BaseException as defect:
            self._news.put(f"a defect in orchestrator: {type(defect).__name__}: {defect}")
            self._news.put(None)
            raise

    def _recorded(self, written: Written) -> None:
        record = written.record
        reason = record.body.get("reason") or record.body.get("why", "")
        late = f" (not on the disk yet: record {record.seq}, {record.hash}: {written.late})" if written.late else ""
        self._news.put(f"{record.kind}: {reason}{late}")
        self._new_head.set()

    def _refill(self) -> str:
        return self._journal.refill() and "the guard's reserve on the disk cannot be filled up"

    def _chores(self) -> None:
        """Tell what is new, and have the disk tried again; until there is nothing to tell any more."""
        from orchestrator.host.journal_heads import tell_syslog

        collected, told = time.monotonic(), ""
        while True:
            line: str | None = ""
            with contextlib.suppress(queue.Empty):
                line = self._news.get(timeout=CHORES_EVERY)
            if line is None:
                return
            if line:
                tell_syslog(f"guard: {line}")
                self._tell(line)
            said = self._ledger.trouble or self._heads_trouble
            if said and not told:
                self._tell(said)
            told = said
            if self._ledger.trouble:
                self._ledger.try_again()
            if time.monotonic() - collected > _GC_EVERY:
                gc.collect()
                collected = time.monotonic()

    def _keep_heads(self) -> None:
        """Keep the head of what is on the disk, if it is another one, until the end."""
        while not self._over.is_set():
            self._new_head.wait(CHORES_EVERY)
            self._new_head.clear()
            try:
                self._witness.keep(self._journal.head)
                self._heads_trouble = ""
            except HostError as error:
                self._heads_trouble = str(error)

"""Schedulers made to be killed: everything is imported once, and each one that serves is a fork of that.

What a fork does is what `orchestrator serve` does: it takes the writer's lock, opens libvirt, the journal and the
store, takes over what runs, and lets turns be taken. Only the chores are left out, which are a process of their own. On
a host without a pool core guests have core 1, as in `orchestrator bench handover --borrow-service-core`.

Commands come on stdin, a line each: ``fork DEFINITION...`` makes a scheduler that takes over what runs, and starts two
guests of each of these; it tells in a line of JSON what it found and has, and waits for SIGUSR1. From then on it tells
which guests are gone, and what becomes of libvirt. Its own end is told as ``gone``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.bench.borrowed import Host, lend, may_lend
from orchestrator.config import decode_guest
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine, Guest
from orchestrator.host import hypervisor, realtime
from orchestrator.host.journal_file import JournalFile
from orchestrator.host.places import runtime_directory, state_directory
from orchestrator.host.store import SqliteStore
from orchestrator.host.writer_lock import WriterLock
from orchestrator.launch import Launcher
from orchestrator.recorder import Recorder
from orchestrator.wiring.definitions import accelerator_for, load_guests, to_run
from orchestrator.wiring.guests import build_launcher, open_hypervisor
from orchestrator.wiring.site import load_policy, load_topology
from tests.fakes.chores import FakeChores

assert hypervisor  # imported now, for the forks

_PR_SET_PDEATHSIG = 1  # prctl(2)


def say(told: object) -> None:
    """Tell it in a line."""
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


@contextlib.asynccontextmanager
async def launching(policy: Policy) -> AsyncIterator[Launcher]:
    """Give a launcher on this host's pool, or on core 1 where there is none."""
    connect = policy.hypervisor.connect
    async with open_hypervisor(connect, lambda line: say({"what": "libvirt", "line": line})) as opened:
        topology = load_topology(policy)
        launcher = build_launcher(topology, opened, connect)
        # A bound has libvirt's daemon raise a limit of QEMU's, which a container's root may not.
        launcher = replace(launcher, bounds_memory=False)
        if may_lend(topology):
            host = lend(Host(topology, opened, launcher.processes))
            launcher = replace(launcher, topology=host.topology, hypervisor=host.hypervisor, processes=host.processes)
        yield launcher


async def live(policy: Policy, guests: list[Guest]) -> None:
    """Schedule until the end."""
    lock = WriterLock(runtime_directory(os.environ) / "scheduler.lock")
    lock.acquire()
    realtime.pin_to(0)
    state = state_directory(os.environ)
    with (
        contextlib.closing(JournalFile(state / "journal.jsonl")) as journal,
        contextlib.closing(SqliteStore(state / "store.sqlite")) as store,
    ):
        recorder = Recorder(journal, store, FakeChores(), time.time_ns, serial_limit=1 << 20)
        async with launching(policy) as launcher:
            engine = Engine(launcher.topology, policy, launcher, realtime.AlarmClock(), tell, recorder)
            began = time.monotonic()
            notes = await engine.adopt(decode_guest)
            gone = await recorder.reconcile([guest.domain for guest in engine.guests.values()])
            seconds = time.monotonic() - began
            said = {"pid": os.getpid(), "seconds": seconds, "notes": notes, "gone": gone}
            said |= {"remembered": [*journal.notes, *store.notes], "held": engine.holders()}
            running = asyncio.create_task(engine.run()) if guests else None
            await engine.start(guests)
            say(said | known(engine, store))
            signal.sigwait({signal.SIGUSR1})
            await (running or engine.run())


def tell(notice: Notice) -> None:
    """Tell of a guest that is gone."""
    if notice.what is Happening.GONE:
        say({"what": "gone", "guest": notice.guest, "at": time.monotonic(), "why": notice.why})


def known(engine: Engine, store: SqliteStore) -> dict[str, Any]:
    """Return what a scheduler knows of its guests, and what its store does."""
    guests = {
        name: {
            "owner": guest.domain.owner,
            "specification": guest.domain.specification,
            "state": engine.state(name),
            "pid": guest.pid,
        }
        for name, guest in engine.guests.items()
    }
    return {"guests": guests, "stored": [guest.name for guest in store.guests()]}


def read_definitions(paths: list[str], policy: Policy) -> list[Guest]:
    """Return two guests of each definition."""
    parsed = load_guests([Path(path) for path in paths])
    architectures = {each.spec.architecture for each in parsed}
    return to_run(parsed, 2, {each: accelerator_for(each, policy) for each in architectures})


def main() -> None:
    """Fork schedulers until nobody asks for one; `sys.argv` has the policy."""
    policy = load_policy(Path(sys.argv[1]))
    gc.freeze()
    say("ready")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # for the forks, which wait for it
    while (line := sys.stdin.readline()).startswith("fork"):
        pid = os.fork()
        if pid == 0:
            try:
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                asyncio.run(live(policy, read_definitions(line.split()[1:], policy)))
            finally:
                traceback.print_exc()
                os._exit(1)
        os.waitpid(pid, 0)
        say("gone")


if __name__ == "__main__":
    main()

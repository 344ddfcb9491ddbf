"""The process itself: reads messages to the end of the socket, and makes what they say durable.

One thread, one loop: while the disk is slow the socket fills, then the scheduler's queue, and only then is anything
dropped, which is counted. It ends when the scheduler has: whatever it is sent, it first makes durable what it has.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from orchestrator import rooms
from orchestrator.chores.counters import Counters
from orchestrator.chores.desk import Desk, Settings
from orchestrator.chores.messages import LARGEST, AnyMessage, Hello, Lost
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.pool import SERVICE_CORE

_MESSAGES = 1000
"""The most messages that are taken before the disk gets its turn."""

_WAIT_FOR_OTHERS = 8.0
"""Seconds; longer than another process's end takes on a disk that takes nothing."""


def serve(connection: socket.socket, counters: Counters, settings: Settings) -> int:
    """Work until the socket ends; return the exit code, 1 if something could not be kept."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the scheduler's; this process ends when its socket does
    notes = settle()
    try:
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _alone(settings.directory)
        desk = Desk(settings)
    except OSError as error:
        why = f"{settings.directory}: logs cannot be kept there: {error.strerror}; make room or give access"
        _greet(connection, Hello(failure=why))
        return 1
    desk.say({"kind": "chores", "pid": os.getpid(), "notes": notes})
    _greet(connection, Hello(notes=notes))
    _loop(connection, counters, desk)
    whole = desk.finish()
    counters.show(desk.counts())
    os.close(lock)
    if not whole:
        sys.stderr.write(f"orchestrator chores: {settings.directory}: the disk took no more; not all is kept\n")
    return 0 if whole else 1


def settle(core: int = SERVICE_CORE) -> tuple[str, ...]:
    """Move this process to the service core, at ordinary priority; return what has to be told of that."""
    try:
        rooms.settle(core)
    except OSError as error:
        where = format_cpulist(os.sched_getaffinity(0))
        why = f"core {core} cannot be used ({error.strerror}); the chores run on {where} instead"
        return (why,)
    return ()


def _alone(directory: Path) -> int:
    """Wait until nobody else keeps logs there, as a killed scheduler's chores do for a moment; return the lock."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + _WAIT_FOR_OTHERS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, "another process's chores are kept there") from None
            time.sleep(0.01)
        else:
            return handle


def _greet(connection: socket.socket, hello: Hello) -> None:
    with contextlib.suppress(OSError):  # who started us may be gone already; what it sent is not
        connection.send(msgspec.msgpack.encode(hello))


def _loop(connection: socket.socket, counters: Counters, desk: Desk) -> None:
    decoder = msgspec.msgpack.Decoder(AnyMessage)

    def send(lost: Lost) -> bool:
        try:
            connection.send(msgspec.msgpack.encode(lost))
        except OSError:  # it has not read for long, or is gone; what was lost is in the counters too
            return False
        return True

    connection.setblocking(False)
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    while True:
        due = desk.due()
        ready.poll(None if due is None else max(0, due - time.monotonic_ns()) / 1_000_000)
        for _ in range(_MESSAGES):
            try:
                data = connection.recv(LARGEST)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # told once; what was sent before can be read still
            if not data:
                return
            try:
                desk.take(decoder.decode(data))
            except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
                desk.refuse(str(error))
            if desk.full():
                break
        desk.work()
        counters.show(desk.counts())
        desk.tell(send)

"""A guest's serial port on this terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from orchestrator.errors import FailedError, UsageError

LEAVE = b"\x1d"  # Ctrl-], as telnet and virsh have it


def attach(path: Path) -> None:
    """Copy between the terminal and the serial socket until Ctrl-], the end of input, or the guest's end.

    UsageError if no guest listens there; FailedError if another console is attached already.
    """
    with _alone(path.parent), socket.socket(socket.AF_UNIX) as port:
        try:
            port.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise UsageError(f"{path}: no guest listens there; `orchestrator ps` shows which run") from None
        descriptor = sys.stdin.fileno()
        with raw_terminal(descriptor):
            _copy(port, descriptor)


@asynccontextmanager
async def attached(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the serial socket, for somebody who is elsewhere; raises as `attach` does."""
    with _alone(path.parent):
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise UsageError(f"{path.parent.name}: has no serial port to attach to now") from None
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def carry(printed: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[object]]) -> None:
    """Copy between the terminal and a guest that is elsewhere, until Ctrl-], the end of input, or the guest's end."""
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    async def show() -> None:
        async for data in printed:
            await loop.run_in_executor(None, os.write, sys.stdout.fileno(), data)

    async def type_() -> None:
        typed: asyncio.Queue[bytes] = asyncio.Queue()
        threading.Thread(target=_read_all, args=(descriptor, loop, typed), daemon=True).start()
        while data := await typed.get():
            before, leave, _ = data.partition(LEAVE)
            if before:
                await send(before)
            if leave:
                return

    with raw_terminal(descriptor):
        ends = {asyncio.create_task(show()), asyncio.create_task(type_())}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in ends:
                each.cancel()


def _read_all(descriptor: int, loop: asyncio.AbstractEventLoop, typed: asyncio.Queue[bytes]) -> None:
    """Read what is typed to its end, in a thread that nobody waits for: not every input can be waited for otherwise."""
    with suppress(OSError, RuntimeError):  # the loop may have ended meanwhile
        while data := os.read(descriptor, 1024):
            loop.call_soon_threadsafe(typed.put_nowait, data)
        loop.call_soon_threadsafe(typed.put_nowait, b"")


@contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Pass on what is typed as it is, if this is a terminal, and say how to leave; as before afterwards."""
    if not os.isatty(descriptor):
        yield
        return
    sys.stderr.write("attached; Ctrl-] leaves\n")
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the guest's run directory while attached: QEMU would leave a second console waiting without a word."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"{directory}: no guest has run here: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedError(f"{directory}: another console is attached to this guest") from None
        yield
    finally:
        os.close(handle)


def _copy(port: socket.socket, descriptor: int) -> None:
    while True:
        ready, _, _ = select.select([port.fileno(), descriptor], [], [])
        if port.fileno() in ready:
            data = port.recv(65536)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if descriptor in ready:
            typed = os.read(descriptor, 1024)
            before, leave, _ = typed.partition(LEAVE)
            port.sendall(before)
            if leave or not typed:
                return

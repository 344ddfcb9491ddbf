"""What measurements have around them: guests that are ended whatever happens, and an engine that goes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.engine import Engine, Guest
from orchestrator.host import realtime
from orchestrator.launch import Launcher, RunningGuest
from orchestrator.together import all_or_first_failure

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WatchedLauncher(Launcher):
    """A launcher that tells when a guest is asked to stop."""

    on_suspend: Callable[[], None] = lambda: None

    async def suspend(self, guest: RunningGuest) -> None:
        """Tell, then stop the guest's vCPUs, and return when that is confirmed."""
        self.on_suspend()
        await Launcher.suspend(self, guest)


@contextlib.asynccontextmanager
async def going(engine: Engine, launcher: Launcher, guests: Sequence[Guest]) -> AsyncIterator[None]:
    """Start guests and let the engine run; end them and it whatever happens, without asking the engine."""
    running, starting = asyncio.create_task(engine.run()), asyncio.create_task(engine.start(guests))
    try:
        await _first_of(starting, running)
        realtime.go_before_others()  # threads that are new
        yield
        if running.done():
            running.result()
    finally:
        # What is still starting must have started to be ended.
        await asyncio.wait({starting, running}, return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, running):
            task.cancel()
        await asyncio.gather(starting, running, return_exceptions=True)
        for each in engine.guests.values():
            await each.monitor.close()
        files = launcher.files
        uuids = [guest.uuid(files.directory(guest.spec.name)) for guest in guests]
        await all_or_first_failure([launcher.hypervisor.remove(uuid) for uuid in uuids])
        for guest in guests:
            shutil.rmtree(files.directory(guest.spec.name), ignore_errors=True)  # what they said is of no interest


async def _first_of(starting: asyncio.Task[None], running: asyncio.Task[Any]) -> None:
    """Return when all have been started; raise what kept them from it."""
    await asyncio.wait({starting, running}, return_when=asyncio.FIRST_COMPLETED)
    for task in (starting, running):
        if task.done():
            task.result()


@contextlib.asynccontextmanager
async def collecting_when_idle(due: Callable[[], float | None]) -> AsyncIterator[None]:
    """Have garbage collected when nothing is due, as `serve` does; `due` is in how many seconds something is."""
    collecting = asyncio.create_task(realtime.Collector(due).run())
    try:
        yield
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


async def interruptible(act: Coroutine[Any, Any, T]) -> T:
    """Do something; the first SIGINT or SIGTERM cancels it, and what it does to clear up is let be."""
    task = asyncio.create_task(act)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

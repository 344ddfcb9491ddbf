"""Guests' states: where they are kept, and how the command line asks the daemon about them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from orchestrator.wiring.client import find, with_client

if TYPE_CHECKING:
    from orchestrator.contexts import Contexts
    from orchestrator.core.agenda import WarmPool
    from orchestrator.core.policy import Policy
    from orchestrator.engine import Engine
    from orchestrator.host.state_files import StateDirectories
    from orchestrator.launch import Launcher
    from orchestrator.recorder import Records
    from orchestrator.shelf import Codec

WARM_EVERY = 1.0
"""Seconds between two looks at the warm pools."""


def state_directories() -> StateDirectories:
    """Return where states are kept on this host."""
    from orchestrator.host.places import state_directory
    from orchestrator.host.state_files import StateDirectories

    return StateDirectories(state_directory(os.environ) / "states")


def build_contexts(
    engine: Engine,
    launcher: Launcher,
    policy: Callable[[], Policy],
    pinned: Callable[[str], bool],
    records: Records,
) -> Contexts:
    """Return what saves and restores the engine's guests, on real adapters; `policy` is the one in force.

    `pinned` as `Codec`.
    """
    from orchestrator.contexts import Contexts
    from orchestrator.host.emulators import QemuPrograms
    from orchestrator.shelf import Shelf
    from orchestrator.wiring.definitions import accelerator_for, emulator_path

    emulators = QemuPrograms(emulator_path, lambda which: accelerator_for(which, policy()).accelerator)
    return Contexts(engine, launcher, Shelf(state_directories(), emulators, codec(pinned)), records, time.time_ns)


def codec(pinned: Callable[[str], bool]) -> Codec:
    """Return how definitions are read and written; `pinned` as `Codec`."""
    from orchestrator.config import decode_guest, encode_guest, guest_paths
    from orchestrator.shelf import Codec

    return Codec(decode_guest, encode_guest, lambda spec: [path for _, path in guest_paths(spec)], pinned)


async def keep_warm(
    contexts: Contexts, pools: Callable[[], Sequence[WarmPool]], tell: Callable[[str], None]
) -> NoReturn:
    """Keep the policy's warm pools filled; `tell` is given a line for what keeps one from it, once."""
    told: list[str] = []
    while True:
        troubles = await contexts.keep_warm(pools())
        for line in troubles:
            if line not in told:
                tell(line)
        told = troubles
        await asyncio.sleep(WARM_EVERY)


async def ask(socket: Path, method: str, *path: str, **wanted: Any) -> Any:
    """Ask the daemon about states; `path` are the parts of the path behind its prefix."""
    quoted = "/".join(quote(part, safe="?=") for part in path)
    return await with_client(socket, lambda client: client.ask_state(method, quoted, **wanted))


async def gc(socket: Path | None) -> Sequence[str]:
    """Remove what saves and clones have left unfinished; the daemon does so, or where none runs, this process."""
    daemon = find(socket)
    if daemon is not None:
        removed: list[str] = (await ask(daemon, "POST", "gc"))["removed"]
        return removed
    from orchestrator.host.places import runtime_directory
    from orchestrator.host.writer_lock import WriterLock

    lock = WriterLock(runtime_directory(os.environ) / "scheduler.lock")
    lock.acquire()  # or a daemon that just starts could be writing
    try:
        return await state_directories().sweep()
    finally:
        lock.release()

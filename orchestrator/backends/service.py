"""The port `BackEnds`: a process on the service core starts them; here they are found again, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from orchestrator.backends.messages import NOTE, SOCKET, Answer, Order, Wanted
from orchestrator.core.backends import OWN_STATE, PACKAGES, BackEnd, Kind
from orchestrator.endings import end, handle_of
from orchestrator.errors import FailedError, HostError, OutcomeUnknownError
from orchestrator.process_identity import identity

END_LIMIT = 3.0
"""Seconds in which a back end ends by itself when it is told to; then it is killed, and has as long again."""

_MOST_WORDS = 65536


class ServiceBackEnds:
    """Back ends of the guests whose run directories are in `root`; a `command` does one `Order`.

    `find` returns where a program is, None if it is not here. Sockets belong to `user`, if QEMU is not run as us.
    """

    def __init__(
        self, root: Path, command: Sequence[str], find: Callable[[Kind], str | None], user: int | None = None
    ) -> None:
        self._root = root
        self._command = tuple(command)
        self._find = find
        self._user = user
        self._words: dict[str, int] = {}

    async def start(self, directory: str, owner: str | None, back_ends: Sequence[BackEnd]) -> None:
        """Have them started; their errors come to a pipe of ours, which never makes one of them wait."""
        order = Order(directory, owner, self._user, tuple(self._wanted(each) for each in back_ends))
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        os.set_blocking(ours, False)
        self._forget(directory)
        self._words[directory] = ours
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=theirs, start_new_session=True, cwd="/"
            )
        finally:
            os.close(theirs)
        try:
            text, _ = await process.communicate(msgspec.json.encode(order))
        finally:  # who has it broken off ends what was started, and no more is to come
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        try:
            trouble = msgspec.json.decode(text, type=Answer).trouble
        except msgspec.MsgspecError:
            words = self.last_words(directory)
            trouble = f"the process that starts back ends ended with {process.returncode}{words and f': {words}'}"
        if trouble:
            await self.end(directory)
            raise FailedError(trouble)

    def _wanted(self, back_end: BackEnd) -> Wanted:
        program = self._find(back_end.kind)
        if program is None:
            package = PACKAGES[back_end.kind]
            raise HostError(f"{back_end.kind} is missing; `apt-get install {package}` installs it")
        return Wanted(program, back_end)

    def processes(self, directory: str) -> Mapping[str, int | None]:
        """Read the notes, and compare each with the process that has this number now."""
        return {name: pid if _runs(note) else None for name, pid, note in _notes(directory)}

    def last_words(self, directory: str) -> str:
        """Return the last line that one of them has written since it was asked last."""
        words = self._words.get(directory)
        text = b""
        with contextlib.suppress(BlockingIOError):
            text = b"" if words is None else os.read(words, _MOST_WORDS)
        lines = text.decode("utf-8", "replace").split("\n")
        printable = ("".join(filter(str.isprintable, line)).strip() for line in reversed(lines))
        return next(filter(None, printable), "")[:400]

    async def end(self, directory: str) -> None:
        """Tell each to end, and see to it."""
        await asyncio.to_thread(_end, directory)
        self._forget(directory)

    def _forget(self, directory: str) -> None:
        words = self._words.pop(directory, None)
        if words is not None:
            os.close(words)

    async def sweep(self, keep: Collection[str]) -> Sequence[str]:
        """Look into each run directory."""
        ended = []
        for note in sorted(self._root.glob(f"*/*{NOTE}")):
            if str(note.parent) in keep or not note.exists():
                continue
            running = sorted(name for name, pid in self.processes(str(note.parent)).items() if pid is not None)
            await self.end(str(note.parent))
            if running:
                ended.append(f"{note.parent.name}: ended {', '.join(running)}, whose guest has ended")
        return ended


def _notes(directory: str) -> Iterator[tuple[str, int, str]]:
    """Yield name, pid and identity of each back end that was started."""
    for path in sorted(Path(directory).glob(f"*{NOTE}")):
        with contextlib.suppress(OSError, ValueError):
            note = path.read_text()
            yield path.name.removesuffix(NOTE), int(note.split(" ", 1)[0]), note


def _runs(note: str) -> bool:
    """Say whether the process of a note goes on: one that has ended keeps its number until it is reaped."""
    pid = int(note.split(" ", 1)[0])
    if identity(pid) != note:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _end(directory: str) -> None:
    with contextlib.ExitStack() as held:
        handles = {name: held.enter_context(_handle(pid, note)) for name, pid, note in _notes(directory)}
        with ThreadPoolExecutor() as pool:
            ended = pool.map(lambda handle: handle is None or end(handle, END_LIMIT), handles.values())
        left = [name for name, gone in zip(handles, ended, strict=True) if not gone]
    if left:
        raise OutcomeUnknownError(f"{directory}: {', '.join(left)} did not end when killed")
    shutil.rmtree(f"{directory}/{OWN_STATE}", ignore_errors=True)
    for path in Path(directory).glob(f"*{NOTE}"):
        path.with_suffix(SOCKET).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _handle(pid: int, note: str) -> Iterator[int | None]:
    """Give a pidfd of the process that was noted; None if it is not there any more."""
    with handle_of(pid) as handle:
        yield handle if identity(pid) == note else None  # asked after it was opened: it stays with this process

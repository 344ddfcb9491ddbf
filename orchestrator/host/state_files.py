"""States of guests on the disk: written aside, made durable, then renamed to where they are offered.

::

    ROOT/.unfinished/RANDOM/         what is being written, or removed
    ROOT/OWNER/KIND/NAME/            what is offered: manifest.json, and the files of the state

Renaming a directory is atomic and never replaces one that has something in it (rename(2)), so a state is there as a
whole or not at all, whenever this process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from orchestrator.core.context import Mark
from orchestrator.core.stream import HEAD, without_window
from orchestrator.errors import FailedError, HostError, OrchestratorError, RefusedError
from orchestrator.state_ports import Draft, StateRecord

_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class StateDirectories:
    """States below `root`, for their owner's daemon alone. Files are handled in worker threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._drafts: set[str] = set()

    async def begin(self, owner: str, kind: str, name: str) -> Draft:
        """Make a fresh directory aside; RefusedError if the name is taken."""
        return await asyncio.to_thread(self._begin, owner, kind, name)

    async def copy(self, source: str, target: str) -> None:
        """Copy a file, its blocks shared where the file system can, its holes left out."""
        await asyncio.to_thread(copy_file, source, target)

    async def forget_window(self, path: str) -> None:
        """Change some bytes near the beginning of QEMU's stream (`core.stream`)."""
        await asyncio.to_thread(_forget_window, Path(path))

    async def drop(self, path: str) -> None:
        """Remove a file; fine if it is not there."""
        await asyncio.to_thread(Path(path).unlink, missing_ok=True)

    async def publish(self, draft: Draft, manifest: str) -> str:
        """Write the manifest, have everything on the disk, and rename the directory; return its new path."""
        return await asyncio.to_thread(self._publish, draft, manifest)

    async def abandon(self, draft: Draft) -> None:
        """Remove the directory."""
        await asyncio.to_thread(shutil.rmtree, draft.directory, ignore_errors=True)
        self._drafts.discard(draft.directory)

    async def records(self, kind: str, owner: str | None = None) -> Sequence[StateRecord]:
        """Return the states of a kind, by owner and name; what somebody has put there without a manifest is none."""
        return await asyncio.to_thread(lambda: list(self._records(kind, owner)))

    async def marks(self, paths: Sequence[str]) -> Mapping[str, Mark | None]:
        """Return size and time of change of these files."""
        return await asyncio.to_thread(lambda: {path: _mark(path) for path in paths})

    async def size(self, directory: str) -> int:
        """Return how many bytes the files of a state take."""
        return await asyncio.to_thread(lambda: sum(each.stat().st_blocks * 512 for each in Path(directory).iterdir()))

    async def remove(self, directory: str) -> None:
        """Rename the directory aside, then remove it."""
        aside = self._aside()
        with _translated(directory, "removed"):
            await asyncio.to_thread(self._remove, directory, aside)
        self._drafts.discard(str(aside))

    async def sweep(self) -> Sequence[str]:
        """Remove all that is aside and not being written by this process."""
        return await asyncio.to_thread(self._sweep)

    def _begin(self, owner: str, kind: str, name: str) -> Draft:
        if self._path(owner, kind, name).exists():
            raise _taken(kind, name)
        aside = self._aside()
        with _translated(str(aside), "made"):
            aside.mkdir(mode=0o700, parents=True)
        return Draft(owner=owner, kind=kind, name=name, directory=str(aside))

    def _publish(self, draft: Draft, manifest: str) -> str:
        aside, path = Path(draft.directory), self._path(draft.owner, draft.kind, draft.name)
        with _translated(str(path), "written"):
            (aside / _MANIFEST).write_text(manifest)
            for each in (*aside.iterdir(), aside):
                _sync(each)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                aside.rename(path)
            except OSError as error:
                if error.errno in _TAKEN:
                    raise _taken(draft.kind, draft.name) from None
                raise
            for directory in (path.parent, path.parent.parent, self._root):
                _sync(directory)
        self._drafts.discard(draft.directory)
        return str(path)

    def _records(self, kind: str, owner: str | None) -> Iterator[StateRecord]:
        owners = "*" if owner is None else _quoted(owner)
        for path in sorted(self._root.glob(f"{owners}/{kind}/*")):
            with contextlib.suppress(OSError):
                yield StateRecord(str(path), (path / _MANIFEST).read_text())

    def _remove(self, directory: str, aside: Path) -> None:
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(directory).rename(aside)
        shutil.rmtree(aside)

    def _sweep(self) -> list[str]:
        found = sorted(str(path) for path in (self._root / _UNFINISHED).glob("*"))
        strays = [path for path in found if path not in self._drafts]
        for path in strays:
            shutil.rmtree(path, ignore_errors=True)
        return strays

    def _aside(self) -> Path:
        path = self._root / _UNFINISHED / uuid.uuid4().hex
        self._drafts.add(str(path))
        return path

    def _path(self, owner: str, kind: str, name: str) -> Path:
        return self._root / _quoted(owner) / kind / _quoted(name)


def _quoted(name: str) -> str:
    """Return a name as that of one file, which is neither hidden nor another folder."""
    quoted = quote(name, safe="@")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def copy_file(source: str, target: str) -> None:
    """Copy a file as ``cp --reflink=auto --sparse=always`` does. FailedError says why it could not be."""
    command = ["cp", "--reflink=auto", "--sparse=always", "--", source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{source}: cannot be copied: {done.stderr.strip().removeprefix('cp: ')}")


def _forget_window(path: Path) -> None:
    with path.open("r+b") as file:
        changed = without_window(file.read(HEAD))
        if changed is None:
            raise FailedError(
                f"{path}: QEMU has not written where the guest's window is; its stream is of another kind"
            )
        file.seek(0)
        file.write(changed)


def _mark(path: str) -> Mark | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return Mark(path, status.st_size, status.st_mtime_ns)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _taken(kind: str, name: str) -> OrchestratorError:
    what = "a saved guest" if kind == "saved" else f"a {kind}"
    return RefusedError(f"{name}: there is {what} of this name already; remove it, or take another name with --as")


@contextlib.contextmanager
def _translated(path: str, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"{path}: cannot be {done}: {error.strerror}"
        raise (
            HostError(f"{why}; make room or give access") if error.errno in _NO_ROOM else FailedError(why)
        ) from error

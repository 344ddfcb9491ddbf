"""The payload store: content-addressed, read-only files, each complete or not there at all.

::

    index.json               all payloads, replaced as a whole
    blobs/public/DIGEST      what everybody may use
    blobs/of-OWNER/DIGEST    what only its owner may use
    incoming/                what is being added; each file is locked by who adds it
    lock                     held while any of this changes

A payload's file is as long as the next power of two, with a hole behind the content, and has mode 0600: QEMU
(7.2) opens what is a guest's RAM for writing, although what the guest writes goes to copies, and root's QEMU has no
capability to open what its mode forbids. What is added
is cloned (FICLONE) where the file system can, else copied, once. It is never hard linked: whoever owns the file that
is added could go on writing to it, by its mode or by a descriptor that is open already. Calls block, and hash a GB or
two a second: they are made in a process on the service core.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import msgspec

from orchestrator.core.payloads import Catalogue, MappedPayload, Payload, Place, name_trouble
from orchestrator.errors import FailedError, HostError, OrchestratorError, UsageError
from orchestrator.payloads.content import digest_of, is_zero, take, unwritten
from orchestrator.payloads.huge import HugeFiles, huge_length, mounted

_MODE = 0o600
_TICKS = 20_000_000  # nanoseconds; the kernel's coarse clock goes on every ten milliseconds at least


@dataclass(frozen=True, slots=True)
class Checked:
    """A payload whose content is right. `settled`: as long as its stamp stays the same, so does its content.

    Each write to a file sets its ctime, which nobody can set back but with the machine's clock. That says all if nobody
    had the file open for writing while it was read, which a read lease proves: a page that is mapped and was written to
    could be written on without a trace. And some ticks must have gone by since, for two changes in one look the same.
    A disk that decays by itself changes no ctime: `verify` reads anew always.
    """

    mapped: MappedPayload
    settled: bool


class PayloadStore:
    """The store below `root`, which is made when something is added."""

    def __init__(self, root: Path, mounts: Callable[[], Mapping[int, Path]] = mounted) -> None:
        self.root = root
        self._huge = HugeFiles(root, mounts)

    @property
    def folders(self) -> list[str]:
        """Return below which directories the files are that guests map."""
        return [str(self.root), *self._huge.folders()]

    def catalogue(self) -> Catalogue:
        """Return all payloads. HostError if the index cannot be read."""
        try:
            text = (self.root / "index.json").read_bytes()
        except FileNotFoundError:
            return Catalogue()
        except OSError as error:
            raise HostError(f"{self.root}/index.json: cannot be read: {error.strerror}") from None
        try:
            return Catalogue(msgspec.json.decode(text, type=tuple[Payload, ...]))
        except msgspec.MsgspecError as error:
            raise HostError(
                f"{self.root}/index.json: is no index of payloads: {error}; restore it, or add anew"
            ) from None

    def path(self, payload: Payload) -> Path:
        """Return where the file of a payload is."""
        return self._at(self.catalogue().place(payload))

    def mapped_file(self, payload: Payload, pages: int | None) -> tuple[Path, int]:
        """Return which file guests map, and its length: in huge pages it is another one."""
        if pages is None:
            return self.path(payload), payload.length
        return self._huge.path(pages, _name(self.catalogue().place(payload))), huge_length(payload, pages)

    def add(self, source: int, name: str, owner: str, *, public: bool, quota: int) -> Payload:
        """Add what can be read from a descriptor. RefusedError, UsageError or HostError: nothing was added.

        The same is done whether the content is there already or not, so that nobody learns it from the time it takes.
        """
        trouble = name_trouble(name)
        if trouble:
            raise UsageError(trouble)
        with self._faults(), self._incoming() as (path, target):
            most = self._most(name, owner, os.fstat(source).st_size, quota)
            digest, size = take(source, target, most)
            if not size:
                raise UsageError(f"{name}: an empty file is no payload")
            payload = Payload(name=name, owner=owner, digest=digest, size=size, public=public, added_at=time.time_ns())
            os.ftruncate(target, payload.length)
            os.fchmod(target, _MODE)
            os.fsync(target)
            with self._locked():
                before = self.catalogue()
                after = before.admit(payload, quota)
                added = next(each for each in after.payloads if (each.owner, each.name) == (owner, name))
                self._put(path, self._at(after.place(added)), added)
                self._change(before, after)
        return added

    def remove(self, payload: Payload) -> None:
        """Take a payload out, and its file if no other has the same; guests that map it keep what they map."""
        with self._faults(), self._locked():
            before = self.catalogue()
            self._change(before, before.without(payload))

    def collect(self, used: Collection[str] = ()) -> tuple[int, int]:
        """Remove what was left behind by those that were killed while they added; return files and bytes.

        Of copies in huge pages too what is not among the digests that are `used`.
        """
        files = freed = 0
        with self._faults(), self._locked():
            wanted = {self._at(place) for place in self.catalogue().places()}
            strays = [path for path in (self.root / "blobs").glob("*/*") if path not in wanted]
            strays += [path for path in (self.root / "incoming").glob("*") if not _is_locked(path)]
            strays += self._huge.unused({_name(place) for place in self.catalogue().places()}, used)
            for path in strays:
                freed += path.stat().st_blocks * 512
                files += 1
                path.unlink()
        return files, freed

    def check(self, payload: Payload) -> Checked:
        """Read a payload's file. FailedError says how it differs from what was added."""
        path = self.path(payload)
        with contextlib.suppress(OSError):
            if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != _MODE:
                path.chmod(_MODE)  # before it is looked at: it is as an older version of this program made it
        return self._check(payload, path)

    def load(self, payload: Payload, pages: int) -> Checked:
        """Have a payload in huge pages of so many bytes, and read it; HostError if it cannot be.

        It is never settled: what is written to such a file through memory leaves no trace.
        """
        with self._faults(), self._locked():
            path, length = self.mapped_file(payload, pages)
            if not path.exists() or not self._is_whole(payload, path, length):
                self._huge.copy(self.path(payload), payload, pages, path)
            try:
                return replace(self._check(payload, path, length), settled=False)
            except FailedError:  # it is what the store has, which is not what was added
                path.unlink(missing_ok=True)
                raise

    def _is_whole(self, payload: Payload, path: Path, length: int) -> bool:
        try:
            self._check(payload, path, length)
        except FailedError:
            return False
        return True

    def _check(self, payload: Payload, path: Path, length: int | None = None) -> Checked:
        length = length or payload.length
        what = f"{payload.owner}/{payload.name}: its file is not what was added"
        mend = f"remove it and add it anew ({path})"
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise FailedError(f"{what}: cannot be opened: {error.strerror}; {mend}") from None
        try:
            with unwritten(handle) as lease:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode) or status.st_size != length:
                    raise FailedError(f"{what}: {status.st_size} bytes instead of {length}; {mend}")
                digest = digest_of(handle, payload.size)
                if digest != payload.digest:
                    raise FailedError(f"{what}: its digest is {digest} instead of {payload.digest}; {mend}")
                if not is_zero(handle, payload.size):
                    raise FailedError(f"{what}: there is something behind its end; {mend}")
                ticked = time.time_ns() - status.st_ctime_ns > _TICKS
                settled = ticked and lease and fcntl.fcntl(handle, fcntl.F_GETLEASE) == fcntl.F_RDLCK
        except OSError as error:
            raise FailedError(f"{what}: cannot be read: {error.strerror}; {mend}") from None
        finally:
            os.close(handle)
        return Checked(MappedPayload(payload.digest, str(path), length, stamp_of(status)), settled)

    # The files.

    def _most(self, name: str, owner: str, size: int, quota: int) -> int:
        """Return how much may be read; RefusedError if that is too much, unless it may be what is there already."""
        catalogue = self.catalogue()
        if size not in {each.size for each in catalogue.payloads if each.owner == owner}:
            catalogue.require_room(owner, name, size, quota)
        return max(size, quota - catalogue.used(owner))

    def _at(self, place: Place) -> Path:
        return self.root / "blobs" / _name(place)

    def _put(self, path: Path, target: Path, payload: Payload) -> None:
        """Move a file that was added to its place, unless the same is there already and whole."""
        if not self._is_whole(payload, target, payload.length):
            self._move(path, target)

    def _change(self, before: Catalogue, after: Catalogue) -> None:
        """Let the catalogue be another, and the files follow."""
        for owner, digest in after.places() - before.places():
            # What was public and is private from now on has a file of its own, whoever else has it.
            if owner is not None and not self._at((owner, digest)).exists():
                with self._incoming() as (path, target), self._at((None, digest)).open("rb") as source:
                    take(source.fileno(), target, os.fstat(source.fileno()).st_size)
                    os.fchmod(target, _MODE)
                    os.fsync(target)
                    self._move(path, self._at((owner, digest)))
        self._write(after)
        for place in before.places() - after.places():
            self._at(place).unlink(missing_ok=True)
            self._huge.drop(_name(place))

    def _move(self, path: Path, target: Path) -> None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.rename(target)
        _sync(target.parent)

    def _write(self, catalogue: Catalogue) -> None:
        temporary = self.root / "index.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(catalogue.payloads), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.root / "index.json")
        _sync(self.root)

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[tuple[Path, int]]:
        """Make a new file, which is gone afterwards unless it was moved; and with it the store, if need be."""
        for directory in (self.root, self.root / "blobs", self.root / "incoming"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.root / "incoming" / secrets.token_hex(8)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield path, handle
        finally:
            os.close(handle)
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OrchestratorError:
            raise
        except OSError as error:
            raise HostError(f"{self.root}: payloads cannot be kept there: {error.strerror}") from None


def _name(place: Place) -> Path:
    owner, digest = place
    return Path("public" if owner is None else f"of-{quote(owner, safe='')}", digest)


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with each write to a file, and with its replacement by another."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_unchanged(mapped: MappedPayload) -> bool:
    """Look whether anybody wrote to the file since it was checked, or put another in its place."""
    try:
        return stamp_of(Path(mapped.path).lstat()) == mapped.stamp
    except OSError:
        return False


def _is_locked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

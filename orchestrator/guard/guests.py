"""The guests of this host as the guard knows them: QEMU processes, each held by a pidfd since it was first seen.

A pidfd means one process for ever, so whatever number it had, another one that gets it later is never hit. Of libvirt,
scheduler and store nothing is asked; a guest's owner is read once from a file.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.cpulist import format_cpulist

_ALL = Path("/sys/fs/cgroup/cpu/cgroup.procs")
"""The first group of the controller `cpu` on v1 of cgroups."""

_YOUNG = 60.0
"""Seconds for which a process is looked at again and again: it may still become a QEMU."""


@dataclass(slots=True)
class Guest:
    """A QEMU process of ours. `handle` is its pidfd, `began` in clock ticks since the host began."""

    name: str
    uuid: str
    pid: int
    began: int
    handle: int
    owner: str = ""

    def described(self) -> dict[str, object]:
        """Return it as a record of the journal has it."""
        return {
            "name": self.name,
            "uuid": self.uuid,
            "pid": self.pid,
            "began": self.began,
            "owner": self.owner,
            "cores": format_cpulist(cores_of(self.pid)),
        }


class Guests:
    """Finds guests; `mark` is an argument that each has, `owner_of` tells whose a guest is by name and uuid.

    With `below` only those are guests that name a file below this folder. `lock` is held by whoever uses a handle.
    """

    def __init__(
        self, mark: str, owner_of: Callable[[str, str], str], *, below: str = "", root: Path = Path("/proc")
    ) -> None:
        self.lock = threading.RLock()
        self._mark = mark.encode()
        self._below = os.fsencode(f"path={below}/") if below else b""
        self._owner_of = owner_of
        self._root = str(root)
        self._known: dict[int, Guest] = {}
        self._others: dict[tuple[int, int], float] = {}

    def look(self, *, all_anew: bool = False) -> None:
        """Find guests that are new, and let go of those that have ended.

        Growth: a directory entry for each process, and two small files for each that is young or `all_anew`.
        """
        now, seen = time.monotonic(), {}
        found: list[Guest] = []
        with os.scandir(self._root) as entries:
            for entry in entries:
                if not entry.name.isdigit():
                    continue
                key = int(entry.name), entry.inode()
                first = self._others.get(key, now)
                seen[key] = first
                if key[0] in self._known or (now - first > _YOUNG and not all_anew):
                    continue
                guest = self._recognized(key[0])
                if guest is not None:
                    found.append(guest)
        owners = {
            guest.uuid: self._owner_of(guest.name, guest.uuid)
            for guest in (*self._known.values(), *found)
            if not guest.owner
        }
        with self.lock:
            self._others = seen
            for guest in found:
                if guest.pid in self._known:
                    os.close(guest.handle)
                else:
                    self._known[guest.pid] = guest
            for guest in list(self._known.values()):
                guest.owner = guest.owner or owners.get(guest.uuid, "")
                if has_ended(guest.handle):
                    del self._known[guest.pid]
                    os.close(guest.handle)

    def all(self) -> list[Guest]:
        """Return those that are there, by name."""
        with self.lock:
            return sorted(
                (each for each in self._known.values() if not has_ended(each.handle)), key=lambda each: each.name
            )

    def chosen(self, names: Collection[str], user: str) -> list[Guest]:
        """Return those of these names, or of this user; who is not known yet is looked for."""
        if user:
            self.look()  # he may have others that are known
        chosen = self._chosen(names, user)
        if {guest.name for guest in chosen} != set(names) or (user and not chosen):
            self.look(all_anew=True)
            chosen = self._chosen(names, user)
        return chosen

    def on(self, cores: Iterable[int]) -> list[Guest]:
        """Return those of which a thread may run on one of these cores."""
        wanted = frozenset(cores)
        self.look()
        return [guest for guest in self.all() if cores_of(guest.pid) & wanted]

    def _chosen(self, names: Collection[str], user: str) -> list[Guest]:
        return [guest for guest in self.all() if guest.name in names or (user and guest.owner == user)]

    def _recognized(self, pid: int) -> Guest | None:
        """Return the guest that this process is, held by a pidfd that was opened before it was looked at."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return None
        arguments, began = self._arguments(pid), self._began(pid)
        name, uuid = _after(arguments, b"-name"), _after(arguments, b"-uuid")
        # What was read is that process's only if it has not ended meanwhile: its number might be another's.
        ours = self._mark in arguments and any(self._below in each for each in arguments)
        if not ours or not name or not uuid or began is None or has_ended(handle):
            os.close(handle)
            return None
        fields = dict(part.partition("=")[::2] for part in name.split(","))
        return Guest(fields.get("guest", name), uuid, pid, began, handle)

    def _arguments(self, pid: int) -> Sequence[bytes]:
        try:
            return Path(self._root, str(pid), "cmdline").read_bytes().split(b"\0")
        except OSError:
            return ()

    def _began(self, pid: int) -> int | None:
        try:
            return int(Path(self._root, str(pid), "stat").read_bytes().rpartition(b")")[2].split()[19])
        except (OSError, IndexError):
            return None


def has_ended(handle: int) -> bool:
    """Tell whether the process behind a pidfd has ended: then it is readable."""
    return bool(_poll(handle, 0.0))


def send(guests: Iterable[Guest], number: signal.Signals) -> None:
    """Signal each; fine if one has ended."""
    for guest in guests:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(guest.handle, number)


def hurry(guests: Iterable[Guest]) -> None:
    """Have processes that were killed end before anything else runs on their cores: ending takes time on a core, too.

    Who has not been killed must not be hurried: nothing would be before it.
    """
    for guest in guests:
        for tid in () if has_ended(guest.handle) else _threads(guest.pid):
            with contextlib.suppress(OSError):
                _go_first(tid)


def _go_first(tid: int) -> None:
    most = os.sched_param(os.sched_get_priority_max(os.SCHED_FIFO))
    try:
        os.sched_setscheduler(tid, os.SCHED_FIFO, most)
    except PermissionError:
        # A kernel with CONFIG_RT_GROUP_SCHED gives libvirt's groups no real-time runtime; on v1 of cgroups who leaves
        # them keeps his cores, which are another hierarchy's affair.
        _ALL.write_text(str(tid))
        os.sched_setscheduler(tid, os.SCHED_FIFO, most)


def wait_for_end(guests: Sequence[Guest], seconds: float) -> list[Guest]:
    """Wait for the end of all, at most so long; return those that are still there."""
    until = time.monotonic() + seconds
    left = list(guests)
    while left and (rest := until - time.monotonic()) > 0:
        _poll(left[0].handle, rest)
        left = [guest for guest in left if not has_ended(guest.handle)]
    return left


def cores_of(pid: int) -> frozenset[int]:
    """Return the cores on which any thread of a process may run; none if it has gone."""
    found: set[int] = set()
    for tid in _threads(pid):
        with contextlib.suppress(OSError):
            found |= os.sched_getaffinity(tid)
    return frozenset(found)


def stands_still(pid: int) -> bool:
    """Tell whether every thread of a process is stopped, or gone."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = task.read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue
        if state not in (b"T", b"Z", b"X"):
            return False
    return True


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return []


def _poll(handle: int, seconds: float) -> object:
    poll = select.poll()  # select() would not do for descriptors from 1024 on
    poll.register(handle, select.POLLIN)
    return poll.poll(seconds * 1000)


def _after(arguments: Sequence[bytes], option: bytes) -> str:
    if option not in arguments[:-1]:
        return ""
    return arguments[arguments.index(option) + 1].decode("utf-8", "replace")

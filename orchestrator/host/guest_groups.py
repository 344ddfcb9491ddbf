"""A control group (v2) for each guest that the embedded driver runs: what its QEMU may have of this host at most.

::

    without a shield    orchestrator.guests/UUID
    under a shield      orchestrator/guests/UUID     inside its partition

The group above guests' has the cores of the pool alone, so whoever would have a guest's thread run on core 0 or 1 has
to bring its process out of there first. Controllers that are switched on for it stay so, as other programs leave them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.core.bounds import Bounds
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.shield import GROUP, TASKS
from orchestrator.errors import FailedError

ROOT = Path("/sys/fs/cgroup")

_NEEDED, _USEFUL = ("memory", "pids"), ("io", "cpuset")


def why_none(root: Path = ROOT, user: int | None = None) -> tuple[str, str]:
    """Say why guests can have no groups of their own here, and what would let them; twice empty if they can."""
    if (os.geteuid() if user is None else user) != 0:
        return "only root may make control groups for guests", "run guests by root's daemon: sudo orchestrator serve"
    controllers = _read(root / "cgroup.controllers")
    if controllers is None:
        return f"{root} has no cgroup v2", "boot with cgroup_no_v1=all, then: mount -t cgroup2 none /sys/fs/cgroup"
    lacking = [name for name in _NEEDED if name not in controllers.split()]
    if lacking:
        mend = f"boot with cgroup_no_v1={','.join(lacking)}, and without cgroup_disable=memory"
        return f"cgroup v2 has no controller {' and '.join(lacking)} here", mend
    if _read(root / "cgroup.type") is not None and _read(root / "cgroup.procs"):
        return f"{root} is a container's, with processes in it: the kernel bounds nothing below", "run it on the host"
    if not os.access(root / "cgroup.subtree_control", os.W_OK):
        return f"{root} cannot be written to", f"mount -o remount,rw {root}"
    return "", ""


class CgroupGroups:
    """Implements `GuestGroups` on a tree of cgroup v2, an argument so that a test can bring its own.

    `pool` are the cores that guests may be on.
    """

    def __init__(
        self, pool: Iterable[int], root: Path = ROOT, proc: Path = Path("/proc"), block: Path = Path("/sys/block")
    ) -> None:
        self._pool = format_cpulist(frozenset(pool))
        self._root = root
        self._proc = proc
        self._block = block

    def confine(self, uuid: str, pid: int, bounds: Bounds) -> None:
        """Make the group, set its bounds, then bring the process in: it is in no group without them."""
        group = self._above(made=True) / uuid
        with _told(group, "made"):
            group.mkdir(exist_ok=True)
        for name, text in self._texts(group, bounds):
            _write(group / name, text)
        with contextlib.suppress(ProcessLookupError):
            _write(group / "cgroup.procs", str(pid))

    def elsewhere(self, uuid: str, pid: int) -> str:
        """Read one line of /proc/PID/cgroup."""
        for line in (_read(f"{self._proc}/{pid}/cgroup") or "").splitlines():
            if line.startswith("0::"):
                own = f"/{self._name_above()}/{uuid}"
                # After " (deleted)" there is nobody in it any more, but a process that has ended.
                return "" if line[3:] in (own, f"{own} (deleted)") else line[3:]
        return ""

    def release(self, uuid: str) -> None:
        """Remove the group, and others in which nothing is left; then the one above them, if it is empty."""
        above = self._above()
        for group in (above / uuid, *_groups(above), above):
            with contextlib.suppress(OSError):  # the kernel keeps those that have processes or groups in them
                group.rmdir()

    def _name_above(self) -> str:
        return f"{GROUP}/guests" if os.access(f"{self._root}/{TASKS}", os.F_OK) else f"{GROUP}.guests"

    def _above(self, *, made: bool = False) -> Path:
        """Return the group above guests'; if it is to be `made`, with all that it has to hand down to them."""
        above = self._root / self._name_above()
        if made:
            self._hand_down(self._root, (*_NEEDED, *_USEFUL))
            if above.parent != self._root:
                self._hand_down(above.parent, (*_NEEDED, *_USEFUL))
            with _told(above, "made"):
                above.mkdir(exist_ok=True)
            self._hand_down(above, (*_NEEDED, "io"))
            if (above / "cpuset.cpus").exists() and _read(above / "cpuset.cpus") != self._pool:
                _write(above / "cpuset.cpus", self._pool)
        return above

    def _hand_down(self, group: Path, names: Iterable[str]) -> None:
        there, handed = ((_read(group / f"cgroup.{of}") or "").split() for of in ("controllers", "subtree_control"))
        for name in names:
            if name in there and name not in handed:
                _write(group / "cgroup.subtree_control", f"+{name}")

    def _texts(self, group: Path, bounds: Bounds) -> Iterator[tuple[str, str]]:
        yield "memory.max", str(int(bounds.memory))
        if (group / "memory.swap.max").exists():
            yield "memory.swap.max", str(int(bounds.memory))
        yield "pids.max", str(bounds.threads)
        if bounds.disk_speed is not None:
            if not (group / "io.max").exists():
                raise FailedError(
                    f"{group}: the kernel has no io controller to bound the speed of disks; leave disk_speed in "
                    "[hypervisor] of the policy away, or boot with cgroup_no_v1=blkio"
                )
            speed = int(bounds.disk_speed)  # a Size writes itself with its unit
            for disk in self._disks():
                yield "io.max", f"{disk} rbps={speed} wbps={speed}"

    def _disks(self) -> Iterator[str]:
        """Yield the numbers (MAJOR:MINOR) of all whole disks that have something in them."""
        for disk in sorted(self._block.iterdir()) if self._block.is_dir() else ():
            number, size = _read(disk / "dev"), _read(disk / "size")
            if number and size and size != "0":
                yield number


def _groups(above: Path) -> list[Path]:
    try:
        return [entry for entry in above.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _read(path: Path | str) -> str | None:
    """Read a file of these trees, without a file object around it: one is asked of each guest each second."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(handle, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return None
    finally:
        os.close(handle)


def _write(path: Path, text: str) -> None:
    with _told(path, f"set to {text!r}"), path.open("w") as file:
        file.write(f"{text}\n")


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        raise
    except OSError as error:
        raise FailedError(f"{path}: cannot be {what}: {error.strerror}") from None

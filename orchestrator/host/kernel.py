"""The kernel's settings that a shield is made of: affinities, masks and cpusets, read and written one by one."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.core.cpulist import format_cpulist, parse_cpulist
from orchestrator.core.shield import GROUP, REST, TASKS, Change, Hierarchy, Kind, Seen, Task, parse_mask
from orchestrator.errors import FailedError, HostError, UsageError

_MASKS = {
    "sys": (
        *("devices/virtual/workqueue/cpumask", "devices/virtual/workqueue/*/cpumask"),
        *("class/net/*/queues/rx-*/rps_cpus", "class/net/*/queues/tx-*/xps_cpus"),
    ),
    "proc": ("irq/default_smp_affinity", "irq/*/smp_affinity", "sys/kernel/watchdog_cpumask"),
}
_SETTINGS = {
    Hierarchy.UNIFIED: (
        *("cgroup.subtree_control", f"{GROUP}/cpuset.cpus", f"{GROUP}/cpuset.cpus.partition"),
        f"{GROUP}/cgroup.subtree_control",
    ),
    Hierarchy.LEGACY: (
        "cpuset.mems",
        *(f"{group}/cpuset.{what}" for group in (GROUP, REST) for what in ("mems", "cpus")),
    ),
}
_KERNEL_THREAD, _NO_SETAFFINITY = 0x00200000, 0x04000000  # PF_KTHREAD, PF_NO_SETAFFINITY in include/linux/sched.h
_PARTITIONS = ("root", "isolated")

_EMPTY_WITHIN = 2.0
"""Seconds that the kernel may take until a cgroup whose processes were moved away can be removed."""


class KernelTrees:
    """Implements `Kernel` on three trees of files, which are arguments so that a test can bring its own."""

    def __init__(
        self,
        cgroup: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        pin: Callable[[int, frozenset[int]], None] = os.sched_setaffinity,
    ) -> None:
        self._cgroup = cgroup
        self._trees = {"proc": proc, "sys": sys}
        self._proc = proc
        self._pin = pin

    @property
    def boot(self) -> str:
        """Return the boot's id."""
        return (self._proc / "sys/kernel/random/boot_id").read_text().strip()

    def see(self) -> Seen:
        """Return the settings. O(threads + interrupts), two small files for each thread."""
        hierarchy, base = self._base()
        cpusets = dict(self._cpusets(hierarchy, base))
        tasks = tuple(self._tasks(hierarchy))
        return Seen(
            hierarchy=hierarchy,
            online=parse_cpulist(_read(self._trees["sys"] / "devices/system/cpu/online") or ""),
            masks=dict(self._masks()),
            cpusets=cpusets,
            partitions=frozenset(
                path for path in cpusets if (_read(base / path / "cpuset.cpus.partition") or "") in _PARTITIONS
            ),
            settings=dict(self._settings(hierarchy, base)),
            tasks=tasks,
            at_root=0 if hierarchy is Hierarchy.UNIFIED else len(list(self._programs_at_root(base))),
        )

    def settings(self) -> dict[str, str]:
        """Read the files that decide, and no others."""
        return dict(self._settings(*self._base()))

    def make(self, change: Change) -> None:
        """Bring about `after`; FailedError says what the kernel did not take."""
        base = self._base()[1]
        match change.kind:
            case Kind.THREAD:
                self._affinity(change.target, parse_cpulist(change.after))
            case Kind.MASK:
                self._mask(change.target, change.after)
            case Kind.GROUP:
                with _told(base / change.target, "made"):
                    (base / change.target).mkdir(exist_ok=True)
            case Kind.GATHER:
                for pid in self._programs_at_root(base):
                    _move(pid, base / change.target)
            case Kind.CPUSET if (base / change.target).is_dir():
                _write(base / change.target / "cpuset.cpus", change.after)
            case Kind.CONTROLLER | Kind.SETTING:
                _write(base / change.target, change.after)
                _check_partition(base, change)
            case _:
                return  # a cgroup that has gone asks for no cores

    def undo(self, change: Change) -> None:
        """Bring about `before`; FailedError says what the kernel did not take."""
        base = self._base()[1]
        match change.kind:
            case Kind.THREAD:
                self._affinity(change.target, parse_cpulist(change.before))
            case Kind.MASK:
                self._mask(change.target, change.before)
            case Kind.CPUSET if (base / change.target).is_dir():
                _write(base / change.target / "cpuset.cpus", change.before)
            case Kind.GROUP if (base / change.target).is_dir():
                _remove(base, base / change.target)
            case Kind.CONTROLLER if (base / change.target).exists():
                _write(base / change.target, change.before)
            case Kind.SETTING if change.target.endswith(".partition") and (base / change.target).exists():
                _write(base / change.target, change.before)
            case _:
                return  # it has gone, goes with its group, or is no state

    def _base(self) -> tuple[Hierarchy, Path]:
        """Return where the hierarchy is that has the cpuset controller."""
        if "cpuset" in (_read(self._cgroup / "cgroup.controllers") or "").split():
            return Hierarchy.UNIFIED, self._cgroup
        if (self._cgroup / "cpuset" / "cpuset.cpus").exists():
            return Hierarchy.LEGACY, self._cgroup / "cpuset"
        raise HostError(
            f"{self._cgroup}: no cpuset controller there, of cgroup v2 or v1, so this host cannot be shielded; "
            "mount -t cgroup2 none /sys/fs/cgroup, and boot without cgroup_disable=cpuset"
        )

    def _mask(self, target: str, text: str) -> None:
        """Write a mask that says something else; fine if its device has gone."""
        tree, _, path = target.partition("/")
        found = _read(self._trees[tree] / path)
        if found is not None and parse_mask(target, found) != parse_mask(target, text):
            _write(self._trees[tree] / path, text)

    def _masks(self) -> Iterator[tuple[str, str]]:
        for tree, patterns in _MASKS.items():
            for pattern in patterns:
                for path in sorted(self._trees[tree].glob(pattern)):
                    text = _read(path)  # a queue alone in its device has no mask to be read
                    if text is not None:
                        yield f"{tree}/{path.relative_to(self._trees[tree])}", text

    def _cpusets(self, hierarchy: Hierarchy, base: Path) -> Iterator[tuple[str, str]]:
        pattern = "*/cpuset.cpus" if hierarchy is Hierarchy.UNIFIED else "**/cpuset.cpus"
        for path in sorted(base.glob(pattern)):
            name = str(path.parent.relative_to(base))
            if name != "." and name.partition("/")[0] not in (GROUP, REST):
                yield name, _read(path) or ""

    def _settings(self, hierarchy: Hierarchy, base: Path) -> Iterator[tuple[str, str]]:
        for path in _SETTINGS[hierarchy]:
            text = _read(base / path)
            if text is not None:
                yield path, text
        for group in (GROUP, TASKS) if hierarchy is Hierarchy.UNIFIED else (GROUP, REST):
            if (base / group).is_dir():
                yield group, "made"

    def _tasks(self, hierarchy: Hierarchy) -> Iterator[Task]:
        for process in self._proc.iterdir():
            if process.name.isdigit() and not self._inside(hierarchy, process):
                with contextlib.suppress(OSError):
                    for thread in (process / "task").iterdir():
                        task = _task(thread)
                        if task is not None:
                            yield task

    def _inside(self, hierarchy: Hierarchy, process: Path) -> bool:
        """Whether a process is under the shield: by the line of its control group, as cgroups(7) has it."""
        for line in (_read(process / "cgroup") or "").splitlines():
            number, controllers, path = (*line.split(":", 2), "", "")[:3]
            ours = number == "0" if hierarchy is Hierarchy.UNIFIED else "cpuset" in controllers.split(",")
            if ours and path.split("/")[1:2] == [GROUP]:
                return True
        return False

    def _programs_at_root(self, base: Path) -> Iterator[int]:
        for word in (_read(base / "cgroup.procs") or "").split():
            task = _task(self._proc / word / "task" / word)
            if task is not None and not task.kernel:
                yield int(word)

    def _affinity(self, target: str, cores: frozenset[int]) -> None:
        tid, _, start = target.partition(":")
        task = _task(self._proc / tid / "task" / tid)
        if task is None or task.start != int(start) or task.allowed == cores:
            return
        try:
            self._pin(task.tid, cores)
        except ProcessLookupError:
            return
        except OSError as error:
            where = format_cpulist(cores)
            raise FailedError(
                f"thread {tid} ({task.name}) cannot be moved to cores {where}: {error.strerror}"
            ) from None


def _remove(base: Path, group: Path) -> None:
    """Remove a cgroup, and those that guests have left in it; who is in one of them goes to the root."""
    for inner in sorted(group.glob("*/")):
        _remove(base, inner)
    until = time.monotonic() + _EMPTY_WITHIN
    while True:
        for word in (_read(group / "cgroup.procs") or "").split():
            _move(int(word), base)
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > until:
                raise FailedError(f"{group}: cannot be removed: {error.strerror}; look who is in it") from None
            time.sleep(0.01)
        else:
            return


def _move(pid: int, group: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        _write(group / "cgroup.procs", str(pid))


def _check_partition(base: Path, change: Change) -> None:
    if change.target.endswith(".partition"):
        found = _read(base / change.target)
        if found != change.after:
            raise FailedError(f"{base / change.target}: the kernel makes no partition of it: {found or 'nothing'}")


def _write(path: Path, text: str) -> None:
    """Write to a file that is there: nothing in these trees can be made by writing."""
    with _told(path, f"set to {text!r}"):
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(handle, f"{text}\n".encode())
        finally:
            os.close(handle)


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Make FailedError of a refusal; that a process has gone is none."""
    try:
        yield
    except ProcessLookupError:
        raise
    except OSError as error:
        raise FailedError(f"{path}: cannot be {what}: {error.strerror}") from None


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def _task(directory: Path) -> Task | None:
    """Read a thread: name, flags (9) and starttime (22) of proc(5)'s stat, Cpus_allowed_list of its status."""
    stat, status = _read(directory / "stat"), _read(directory / "status")
    if stat is None or status is None:
        return None
    head, _, tail = stat.rpartition(")")
    fields = tail.split()  # fields[0] is field 3
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S*)", status, re.MULTILINE)
    if allowed is None or fields[0] in "ZX":
        return None
    flags = int(fields[6])
    try:
        cores = parse_cpulist(allowed[1])
    except UsageError:
        return None
    return Task(
        tid=int(directory.name),
        start=int(fields[19]),
        name=head.partition("(")[2],
        allowed=cores,
        kernel=bool(flags & _KERNEL_THREAD),
        fixed=bool(flags & _NO_SETAFFINITY),
    )

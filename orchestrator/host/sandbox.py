"""Reads what the kernel says of a process's confinement: status, namespaces, and the limits of its control groups."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.sandbox import UNBOUNDED, Facts, parse_status

_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",) * 2, "io": ("io.max", "")}
"""By controller: the file of cgroup v2, and that of v1."""


def read_facts(pid: int, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Facts | None:
    """Return what there is to know of a process; None if it has gone."""
    process = proc / str(pid)
    threads = []
    with contextlib.suppress(OSError):
        for task in sorted((process / "task").iterdir(), key=lambda path: int(path.name)):
            with contextlib.suppress(OSError):
                threads.append(parse_status((task / "status").read_text("utf-8", "replace")))
    if not threads:
        return None
    own = []
    for name in ("mnt", "net", "pid", "ipc", "uts", "user", "cgroup"):
        with contextlib.suppress(OSError):
            if (process / "ns" / name).readlink() != (proc / "self" / "ns" / name).readlink():
                own.append(name)
    limits: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for name, text in _limits((process / "cgroup").read_text(), cgroup):
            limits[name] = _tighter(limits.get(name), text)
    return Facts(threads, own, limits)


def _limits(text: str, root: Path) -> Iterator[tuple[str, str]]:
    """Yield the limits of each group of a process, and of those above it; names are those of v2."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        for controller, (unified, legacy) in _FILES.items():
            if number == "0":
                base, file = root, unified
            elif controller in controllers.split(","):
                base, file = root / controllers, legacy
            else:
                continue
            group = base / path.lstrip("/")
            for directory in (group, *group.parents):
                with contextlib.suppress(OSError):
                    yield unified, (directory / file).read_text().strip()
                if directory == base:
                    break


def _tighter(before: str | None, text: str) -> str:
    if before is None or before in UNBOUNDED or not before:
        return text
    if text in UNBOUNDED or not text.isdigit() or not before.isdigit():
        return before
    return str(min(int(before), int(text)))

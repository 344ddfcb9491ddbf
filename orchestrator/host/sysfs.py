"""Reads processor topology from sysfs, this host's or a copy; core.discovery says what it means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.core.discovery import discover
from orchestrator.core.topology import Topology
from orchestrator.errors import UsageError

SYSFS = Path("/sys/devices/system")

_LISTS = ("cpu/online", "cpu/present", "cpu/isolated", "cpu/nohz_full", "node/online", "node/possible")
_CPU_FILES = (
    "online",
    "topology/core_id",
    "topology/physical_package_id",
    "topology/die_id",
    "topology/thread_siblings_list",
    "topology/core_cpus_list",
    "topology/thread_siblings",
    "topology/core_cpus",
)
_CACHE_FILES = ("level", "type", "size", "shared_cpu_list", "shared_cpu_map")
_NODE_FILES = ("cpulist", "cpumap", "meminfo", "distance")

_LARGEST = 1 << 20
"""Bytes read of one file; the largest genuine ones, masks and meminfo, are far below it."""


def read_topology(root: Path = SYSFS, reserved: Iterable[int] = ()) -> Topology:
    """Return the topology told by `root`, a directory like ``/sys/devices/system`` with cpu/ and node/ in it.

    `reserved` are cores that the policy keeps from guests besides cores 0 and 1. What exists and
    cannot be read is named in the topology's warnings. Growth: linear in the CPUs, some 30 files each.
    Raises UsageError if `root` holds no cpu/ directory or no online CPU.
    """
    try:
        is_tree = (root / "cpu").is_dir()
    except OSError as error:
        raise UsageError(f"{root}: cannot be read ({error.strerror})") from None
    if not is_tree:
        raise UsageError(f"{root}: no cpu/ directory in it; give {SYSFS} or a copy of it from another machine")
    tree = _Tree(root)
    tree.read()
    try:
        topology = discover(tree.files, reserved)
    except UsageError as error:
        raise UsageError(f"{root}: {'; '.join((str(error), *tree.unreadable[:1]))}") from None
    return replace(topology, warnings=(*tree.unreadable, *topology.warnings))


@dataclass(slots=True)
class _Tree:
    """A directory and what was found in it; `files` is what core.discovery calls Files."""

    root: Path
    files: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def read(self) -> None:
        self._texts("", _LISTS)
        for cpu in self._numbered("cpu", "cpu"):
            self._texts(cpu, _CPU_FILES)
            self._numbered(cpu, "node")
            for index in self._numbered(f"{cpu}/cache", "index"):
                self._texts(index, _CACHE_FILES)
        for node in self._numbered("node", "node"):
            self._texts(node, _NODE_FILES)
            self._numbered(node, "cpu")

    def _numbered(self, directory: str, kind: str) -> list[str]:
        """Note and return what a directory has that is called `kind` and a number: a directory or a link."""
        try:
            names = [entry.name for entry in (self.root / directory).iterdir()]
        except OSError as error:
            self._missed(directory, error)
            return []
        paths = [f"{directory}/{name}" for name in names if re.fullmatch(f"{kind}[0-9]+", name)]
        self.files.update(dict.fromkeys(paths, ""))
        return paths

    def _texts(self, directory: str, names: Iterable[str]) -> None:
        for name in names:
            path = f"{directory}/{name}".lstrip("/")
            try:
                with (self.root / path).open("rb") as file:
                    self.files[path] = file.read(_LARGEST).decode("ascii", errors="replace")
            except OSError as error:
                self._missed(path, error)

    def _missed(self, path: str, error: OSError) -> None:
        # That a file is missing is for core.discovery to judge; only what is there and withheld is told here.
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self.unreadable.append(f"{path}: cannot be read ({error.strerror}); taken as missing")

"""What the kernel's control groups can do for guests on this host."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path("/sys/fs/cgroup")


def bounds_memory(connect: str, root: Path = ROOT) -> bool:
    """Whether libvirt can have the kernel bound a guest's memory, where it is reached by `connect`.

    The embedded driver runs without cgroups: one thing less between a guest and the cores of its turn. A user's own
    libvirt has none, and takes no notice of a bound.
    """
    return is_privileged(connect) and has_memory_controller(root)


def is_privileged(connect: str) -> bool:
    """Whether this names the system's libvirt, as ``qemu:///system`` does: it makes a cgroup for each guest."""
    return urlsplit(connect).path == "/system"


def has_memory_controller(root: Path = ROOT) -> bool:
    """Whether there is a memory controller, of version 2 or 1."""
    unified = root / "cgroup.controllers"
    if unified.exists():
        return "memory" in unified.read_text().split()
    return (root / "memory" / "memory.limit_in_bytes").exists()

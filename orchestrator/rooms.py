"""Where processes of ours stand while the host is shielded: the scheduler's inside, those of the service core outside.

Without a shield there is nothing to do. Cpusets are inherited, so only who begins anew has to move. A move lets a
process run on all cores of its new cpuset: pin it afterwards.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from orchestrator.core.pool import SERVICE_CORE
from orchestrator.core.shield import GROUP, REST, TASKS

CGROUP = Path("/sys/fs/cgroup")


def enter(cgroup: Path = CGROUP, who: int | str = "self") -> bool:
    """Bring a process, this one unless told, under the shield; return whether there is one, and it is in.

    Where it may not, it stays outside, and whoever pins it next is told by the kernel.
    """
    for directory in (cgroup / TASKS, cgroup / "cpuset" / GROUP):
        if directory.is_dir() and not is_inside(who):
            with contextlib.suppress(OSError):
                (directory / "cgroup.procs").write_text("0\n" if who == "self" else f"{who}\n")
    return is_inside(who)


def leave(cgroup: Path = CGROUP) -> None:
    """Bring this process out of the shield, if it is in."""
    if is_inside("self"):
        legacy = cgroup / "cpuset" / REST
        with contextlib.suppress(OSError):
            ((legacy if legacy.is_dir() else cgroup) / "cgroup.procs").write_text("0\n")


def settle(core: int = SERVICE_CORE) -> None:
    """Move this process to the service core, at ordinary priority: a scheduler may have started it.

    OSError if it may not run there; it is where it was then.
    """
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    leave()
    os.sched_setaffinity(0, {core})


def is_inside(who: int | str) -> bool:
    """Return whether a process is under the shield, by the paths of its control groups (cgroups(7))."""
    try:
        lines = Path(f"/proc/{who}/cgroup").read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":", 2)[-1].split("/")[1:2] == [GROUP] for line in lines)

"""Hosts in memory to be shielded, and what must hold of any way to do it, wherever it is cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from orchestrator.core.shield import Division, Hierarchy, Seen, Task, decide
from orchestrator.core.shield_record import ShieldRecord
from orchestrator.shield_ports import Kernel, ShieldBook
from tests.fakes.kernel import FakeBook, FakeKernel, KilledError, Life

CORES = Division(frozenset({0, 2, 3, 4, 5}), frozenset({1}))
ALL = frozenset(range(6))


def task(tid: int, name: str, *allowed: int, kernel: bool = False, fixed: bool = False) -> Task:
    return Task(tid, 100 + tid, name, frozenset(allowed) or ALL, kernel, fixed)


UNIFIED = Seen(
    hierarchy=Hierarchy.UNIFIED,
    online=ALL,
    masks={
        "sys/devices/virtual/workqueue/cpumask": "3f",
        "proc/irq/24/smp_affinity": "00000018",
        "proc/irq/25/smp_affinity": "2",
        "proc/irq/26/smp_affinity": "3f",
        "sys/class/net/eth0/queues/rx-0/rps_cpus": "00",
        "proc/sys/kernel/watchdog_cpumask": "0-5",
    },
    cpusets={"system.slice": "", "batch": "2-5", "half": "1-2"},
    settings={"cgroup.subtree_control": "cpuset memory"},
    tasks=(
        task(2, "kthreadd", kernel=True),
        task(15, "ksoftirqd/0", 0, kernel=True, fixed=True),
        task(40, "kswapd0", 0, 1, 2, kernel=True),
        task(200, "init"),
        task(201, "pinned", 3),
        task(202, "two", 1, 4),
        task(203, "settled", 1),
    ),
)
BARE = replace(UNIFIED, settings={"cgroup.subtree_control": "memory"}, cpusets={})
LEGACY = replace(
    UNIFIED,
    hierarchy=Hierarchy.LEGACY,
    settings={"cpuset.mems": "0-1"},
    cpusets={"docker": "0-5", "docker/one": "2-3", "docker/two": "1"},
    at_root=3,
)
WORLDS = {"v2": UNIFIED, "v2, controller off": BARE, "v1": LEGACY}

Shield = Callable[[Kernel, ShieldBook], ShieldRecord]
Unshield = Callable[[Kernel, ShieldBook], ShieldRecord | None]


def whole(kernel: FakeKernel, refused: frozenset[str] = frozenset()) -> bool:
    return not [each for each in decide(kernel.seen, CORES, isolated=False) if each.target not in refused]


def check_every_end(seen: Seen, shield: Shield, unshield: Unshield) -> int:
    """Kill raising and taking down at each half step; whatever is run next brings the host to where it says.

    Returns at how many points a process was killed.
    """
    killed = 0
    for shielded_first in (False, True):
        for steps in count():
            for then in (unshield, shield):
                kernel, book = FakeKernel(seen), FakeBook()
                if shielded_first:
                    shield(kernel, book)
                kernel.life = book.life = Life(steps)
                try:
                    (unshield if shielded_first else shield)(kernel, book)
                except KilledError:
                    killed += 1
                    ended = False
                else:
                    ended = True
                kernel.life = book.life = Life()
                then(kernel, book)
                if then is shield:
                    assert whole(kernel), f"killed after {steps} steps, then shielded: {kernel.seen}"
                    unshield(kernel, book)
                assert kernel.seen == seen, f"killed after {steps} steps, then not as before: {kernel.seen}"
                assert book.text is None
            if ended:
                break
    return killed

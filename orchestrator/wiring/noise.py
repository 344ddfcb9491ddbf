"""`orchestrator host noise`, put together: the counters, and which processes are ours."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.core.topology import Role
from orchestrator.wiring.site import load_topology

if TYPE_CHECKING:
    from orchestrator.core.noise import Noise
    from orchestrator.core.policy import Policy


def measure(policy: Policy, seconds: float) -> tuple[tuple[Noise, Role], ...]:
    """Watch for so many seconds; return what disturbed core 0 and each pool core, with what each core is for."""
    from orchestrator import rooms
    from orchestrator.core.noise import noise
    from orchestrator.host.counters import Counters
    from orchestrator.host.processes import ProcFs

    kernel = ProcFs()
    guests, scheduler = kernel.emulators_of_ours(), _scheduler()

    @cache
    def ours(pid: int) -> bool:
        return pid in guests or pid == scheduler or rooms.is_inside(pid)

    roles = {cpu.id: cpu.role for cpu in load_topology(policy).cpus if cpu.role in (Role.SCHEDULER, Role.POOL)}
    counters = Counters(ours, os.getpid())
    looks = counters.watch(seconds)
    return tuple((each, roles[each.core]) for each in noise(looks, counters.allowed(), roles))


def _scheduler() -> int | None:
    """Return the process that schedules here, whether it runs guests or not."""
    from orchestrator.host import embed
    from orchestrator.wiring.site import embedded_root

    return embed.holder(embedded_root())

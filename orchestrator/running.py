"""A guest that was started: its process, its monitor, and what was seen of it. Its one writer is the engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from orchestrator.core.charge import Charge
from orchestrator.core.pins import ReservedCoreWatch
from orchestrator.core.xml.domain import Domain
from orchestrator.ports import Monitor, ThreadRoles


@dataclass(slots=True, kw_only=True)
class RunningGuest:
    """A guest that was started, and what was seen of it.

    `pid` is None once the process has gone: the kernel may give its number to another. `domain` has the placement of
    its present turn, or of its last; `cores` are all it ever had. `cpu_seconds` is what it has used, `charge` what it
    was charged for, `drift` how much of the one is beyond the other (see `core.charge`), `log_size` how far the
    serial log was read, `unfinished` the last line's beginning, `last_line` the last whole one without what a
    terminal would obey, `serial_lost` how many bytes of what guests of this name printed could not be kept on the
    disk. `ended` says how the guest ended, once it has and is not to be restarted, `crashed` whether it or its QEMU
    failed. `hung_up` is set when its QEMU has hung up, `over` when its end has been taken in, and `cleared` when
    nothing is left of it. `still` is held by whoever stops it or lets it run. `disk` is as `Guest.disk`. While it is
    `reseating` only who does that may pin its threads; `put_back` is how many somebody else had moved. `activity` is
    what its process had done at the last look; `quiet_looks` times since that was the same, and it was left at that.
    """

    domain: Domain
    pid: int | None
    monitor: Monitor
    roles: ThreadRoles
    watch: ReservedCoreWatch
    disk: int = 0
    cores: set[int] = field(default_factory=set)
    ran: bool = False
    cpu_seconds: float = 0.0
    charge: Charge = field(default_factory=Charge)
    drift: int = 0
    serial_lost: int = 0
    heartbeats: int = 0
    last_line: str = ""
    log_size: int = 0
    unfinished: bytes = b""
    ended: str | None = None
    crashed: bool = False
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    still: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False
    cleared: bool = False
    reseating: bool = False
    put_back: int = 0
    activity: str = ""
    quiet_looks: int = 0
    back_ends: dict[str, int | None] = field(default_factory=dict)
    workers: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return the guest's name."""
        return self.domain.spec.name

"""What a decision looks at: the guests that are known, the cores that each may have, and the policy, at one moment.

Values only. `plan` judges requests by a snapshot, `scheduler` takes one of its books; nothing is read anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.account import TimeUsed
from orchestrator.core.model import GuestSpec, Mode, SmtWish
from orchestrator.core.placement import Placement
from orchestrator.core.policy import Policy
from orchestrator.core.pool import Pool
from orchestrator.core.poolindex import physical_cores
from orchestrator.core.topology import Topology
from orchestrator.core.units import Units


class Standing(StrEnum):
    """How a guest stands with the scheduler. An active one runs or, if it is shared, waits for its turn."""

    STARTING = "starting"
    ACTIVE = "active"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    MOVING = "moving"
    RESIZING = "resizing"
    STOPPING = "stopping"
    QUARANTINED = "quarantined"


_TURNS = (Standing.STARTING, Standing.ACTIVE, Standing.RESUMING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A guest in the books: whose it is, its class (the higher goes first), and the placement it was launched with.

    `kept` are the cores that it keeps from shared guests, and from everybody else: all of an exclusive guest's,
    those on which a quarantined one may still run. `disk` is what its writable disks can grow to. `throttled` says why
    a shared guest gets no turns although nobody has paused it.
    """

    spec: GuestSpec
    owner: str
    priority: int
    standing: Standing
    placement: Placement
    kept: tuple[int, ...] = ()
    disk: int = 0
    throttled: str = ""

    @property
    def exclusive(self) -> bool:
        """Whether it keeps its cores from start to stop."""
        return self.spec.mode is Mode.EXCLUSIVE

    @property
    def takes_turns(self) -> bool:
        """Whether it is a shared guest that has turns, or is about to."""
        return not self.exclusive and self.standing in _TURNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One moment, `now` in nanoseconds; `guests` are by name.

    `units` are those of the whole pool (which of them are free is not looked at), `shared` the cores that nobody
    keeps, over which shared guests rotate, and `usable` the units that are wholly among them. `gangs` counts the
    guests that take turns, by the units they need. `spent` is what each user has used of time.
    """

    now: int
    topology: Topology
    policy: Policy
    pool: Pool
    units: Units
    shared: frozenset[int]
    usable: int
    guests: Mapping[str, Known] = field(default_factory=dict)
    gangs: Mapping[int, int] = field(default_factory=dict)
    spent: Mapping[str, TimeUsed] = field(default_factory=dict)


def unit_groups(topology: Topology, *, split_cores: bool) -> tuple[tuple[int, ...], ...]:
    """Return the pool cores in the groups that shared guests get: physical cores, or single ones if they may be split.

    Growth: the host's CPUs, beside sorting.
    """
    pool = topology.pool.cores
    if split_cores:
        return tuple((core,) for core in sorted(pool))
    groups = (tuple(sorted(pool.intersection(threads))) for threads in physical_cores(topology))
    return tuple(group for group in groups if group)


def gang_width(spec: GuestSpec, units: Units) -> int:
    """Return how many cores a shared guest holds in its turn, before they are rounded up to whole units.

    One that wants its siblings idle takes a unit for each thread of its own.
    """
    return spec.cores_needed * (units.threads if spec.smt is SmtWish.ISOLATE else 1)

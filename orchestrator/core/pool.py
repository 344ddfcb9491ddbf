"""The pool: the cores on which guests may run, as a type that cannot hold any other core.

What places a guest takes its cores from `Pool.check`, so no placement can name a core that is
reserved, offline or not there. How a host's pool comes about is told in `topology`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from orchestrator.core.cpulist import format_cpulist
from orchestrator.errors import ReservedCoreError

SCHEDULER_CORE = 0
"""The core of this program's scheduler and of the emergency guard; never a guest's."""

SERVICE_CORE = 1
"""The core of housekeeping and of device back ends; never a guest's."""

FIRST_POOL_CORE = 2
"""No core below this one is ever in a pool, whatever the host or the policy."""

_FIXED = {SCHEDULER_CORE: "scheduler core", SERVICE_CORE: "service core"}


@dataclass(frozen=True, slots=True)
class Pool:
    """The cores that guests may have; may be empty, never holds core 0 or 1.

    `reasons` says of cores outside the pool why they are outside, for the refusals of `check`; a
    core that is neither in the pool nor in `reasons` counts as absent. Two pools of the same cores
    are equal. Raises ReservedCoreError when built with a core below 2.
    """

    cores: frozenset[int]
    reasons: Mapping[int, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Copies, so that no set or mapping somebody still holds can change a pool that was checked.
        object.__setattr__(self, "cores", frozenset(self.cores))
        object.__setattr__(self, "reasons", MappingProxyType(dict(self.reasons)))
        low = [core for core in self.cores if core < FIRST_POOL_CORE]
        if low:
            raise ReservedCoreError(f"a pool cannot hold {self._name(low)}; it starts at core {FIRST_POOL_CORE}", low)

    def __contains__(self, core: int) -> bool:
        return core in self.cores

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.cores))

    def __len__(self) -> int:
        return len(self.cores)

    def check(self, cores: Iterable[int]) -> frozenset[int]:
        """Return `cores` as a set if all are in the pool.

        Raises ReservedCoreError, which names each core that is not, with its reason, and what is free
        to choose. Growth: linear in the cores asked for, beside the listing of the pool in a refusal.
        """
        wanted = frozenset(cores)
        outside = wanted - self.cores
        if outside:
            choice = f"the pool is {format_cpulist(self.cores)}" if self.cores else "this host's pool is empty"
            raise ReservedCoreError(f"not for guests: {self._name(outside)}; {choice}", outside)
        return wanted

    def _name(self, cores: Iterable[int]) -> str:
        return ", ".join(f"core {core} ({self._reason(core)})" for core in sorted(cores))

    def _reason(self, core: int) -> str:
        return _FIXED.get(core) or self.reasons.get(core, "absent")

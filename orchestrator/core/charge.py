"""What a guest is charged for, from confirmed run intervals, checked against the kernel's own figure. Pure.

A guest's threads may run on the cores that it has, so within its intervals the kernel cannot count more than their
length times those cores. What it counts beyond that was used while the guest was to stand still, or on a core that was
not its own: that is *drift*. The kernel counting less is no fault: a guest may idle.

Times are nanoseconds, core time is core-nanoseconds. Each call takes constant time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.core.durations import Duration

LEAST = Duration.parse("2 s")
"""What may be beyond in any case: QEMU starts, answers its monitors and stops on its own account."""

PART = 10
"""A tenth may be beyond: a guest runs some moments before it is confirmed that it does, turn for turn."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one process has been charged until `since`, from when on it has had so many `cores`; 0: it stands still.

    `counted` is what the kernel had counted before the first interval, None if nobody has looked yet.
    """

    charged: int = 0
    since: int = 0
    cores: int = 0
    counted: int | None = None

    def runs(self, at: int, cores: int) -> Charge:
        """Charge for so many cores from now on; none: it stands still."""
        return replace(self, charged=self.until(at), since=at, cores=cores)

    def first_look(self, kernel: int) -> Charge:
        """Note what the kernel had counted when the first interval began, or when the process was taken over."""
        return replace(self, counted=kernel) if self.counted is None else self

    def until(self, at: int) -> int:
        """Return what has been charged until a moment, the present interval included."""
        return self.charged + self.cores * (at - self.since)

    def drift(self, at: int, kernel: int) -> int:
        """Return by how much the kernel counts more than was charged, beyond what may be; 0 if it is within that."""
        charged = self.until(at)
        beyond = kernel - (self.counted or 0) - charged
        return beyond if beyond > LEAST + charged // PART else 0

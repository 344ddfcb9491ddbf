"""/proc/stat: how much of each core's time was in use, by the kernel's own count."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_IDLE = (3, 4)  # idle and iowait among the fields of proc(5)
_COUNTED = 8  # guest times, which come after these, are within user's


class CpuTimes(NamedTuple):
    """What a core has done since the boot, in ticks."""

    busy: int
    total: int

    def load_since(self, before: CpuTimes) -> float:
        """Return the part of the time since then that was in use; 0 if no tick has passed."""
        total = self.total - before.total
        return max(0.0, min(1.0, (self.busy - before.busy) / total)) if total > 0 else 0.0


def read_cpu_times(root: Path = Path("/proc")) -> dict[int, CpuTimes]:
    """Return the times of each online core."""
    found = {}
    for line in (root / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(field) for field in fields[:_COUNTED]]
            idle = sum(ticks[place] for place in _IDLE)
            found[int(name[3:])] = CpuTimes(sum(ticks) - idle, sum(ticks))
    return found

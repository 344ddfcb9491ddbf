"""The wall clock of this host, and which boot it counts in."""

from __future__ import annotations

import time
from datetime import datetime
from functools import cached_property
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class HostCalendar:
    """CLOCK_REALTIME, in the host's time zone."""

    @cached_property
    def boot(self) -> str:
        """Return the kernel's name for this boot."""
        return _BOOT.read_text().strip()

    def wall(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns()

    def local(self) -> datetime:
        """Return what a clock on the wall shows here, without a time zone."""
        return datetime.now()

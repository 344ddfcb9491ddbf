"""The port to the wall clock, which is no clock to wait by: anybody may set it at any time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Calendar(Protocol):
    """What time it is for people."""

    @property
    def boot(self) -> str:
        """Which boot of the host this is: monotonic clocks of the same one can be compared."""

    def wall(self) -> int:
        """Return nanoseconds since 1970."""

    def local(self) -> datetime:
        """Return what a clock on the wall shows here, without a time zone."""

"""What a scheduler costs that has nothing to do: CPU time of its core, and memory, by the guests that stand still.

Guests are real QEMUs under libvirt that were launched and never run. Measured is the process that schedules them, with
all that `serve` does now and then (looks at threads and serial logs, shares, garbage), but without its API.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTS = (0, 20, 200)


@dataclass(frozen=True, slots=True)
class Idle:
    """With so many guests: the part of one core that was used within `seconds`, and resident memory, in bytes."""

    guests: int
    seconds: float
    cpu: float
    memory: int

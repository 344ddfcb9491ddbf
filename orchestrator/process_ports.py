"""The port to the kernel's view of guests' processes, and of their threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.pins import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """One live thread as the kernel sees it.

    `allowed` are the cores it may run on, `last_core` the one it ran on last, `cpu_seconds` what it has used.
    """

    tid: int
    name: str
    allowed: frozenset[int]
    last_core: int
    cpu_seconds: float


class Processes(Protocol):
    """The kernel's view of the processes behind guests."""

    def find(self, uuid: str) -> int | None:
        """Return the pid of the QEMU process with this domain uuid."""

    def threads(self, pid: int) -> Sequence[Thread]:
        """Return all threads of a process; empty if it has gone."""

    def activity(self, pid: int) -> str:
        """Return what differs once a process has used CPU time, or has threads more or fewer; empty if it has gone."""

    def memory(self, pid: int) -> int:
        """Return how many bytes of a process are in memory, shared pages too; 0 if it has gone."""

    def standing(self, pid: int) -> Mapping[int, Standing]:
        """Return where each thread of a process may run, by thread id, at less cost than `threads`."""

    def workers(self, pid: int) -> Sequence[int]:
        """Return the kernel's own threads that work for a process (vhost), each of which is a process of one thread."""

    def is_dying(self, pid: int) -> bool:
        """Return whether a process has been killed, so that it does nothing more of its own; also if it has gone."""

    def calm(self, tid: int) -> None:
        """Put a thread into the ordinary scheduling class; fine if it has gone. FailedError if the kernel refuses."""

    def gather(self, pid: int) -> None:
        """Bring a process into the control group of this one, where that is its place; fine if it has gone.

        All its threads may run anywhere there then. FailedError if the kernel refuses.
        """

    def pin(self, tid: int, cores: frozenset[int]) -> None:
        """Let a thread run on these cores only; fine if it has gone. FailedError if the kernel refuses."""

    def identity(self, pid: int) -> str:
        """Return what no other process of this boot has, also later: when it began is part of it. Empty if it ended."""

    def freeze(self, pid: int, uuid: str) -> None:
        """Stop every thread of the QEMU process of this domain; fine if it is not that domain's (any more)."""

    def thaw(self, pid: int, uuid: str) -> None:
        """Let its threads go on that `freeze` has stopped; fine if it is not that domain's (any more)."""

    def kill(self, pid: int, uuid: str) -> None:
        """End that process at once, without its help; fine if it is not that domain's (any more)."""

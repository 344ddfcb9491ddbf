"""The ports: what the engine may ask of the outside world, as Protocols, and the values that come back.

Adapters live in `host/`, fakes in `tests/fakes/`; both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orchestrator.core.xml.metadata import Metadata


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


SHUT_OFF = "shutoff"
"""The state of a domain that is defined and does not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDomain:
    """A domain of ours that libvirt knows. `pid` is None when no process stands behind it any more.

    `state` is libvirt's word (running, paused, crashed, ...).
    """

    name: str
    uuid: str
    state: str
    pid: int | None
    metadata: Metadata


class DomainEventKind(StrEnum):
    """What libvirt tells about a domain without being asked."""

    STOPPED = "stopped"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """A domain ended by itself or by another's hand; `detail` is libvirt's reason."""

    name: str
    kind: DomainEventKind
    detail: str


@dataclass(frozen=True, slots=True)
class ThreadRoles:
    """Which thread is which, told by QEMU: vCPU index to thread id, I/O thread name to thread id."""

    vcpus: Mapping[int, int]
    iothreads: Mapping[str, int]


class Clock(Protocol):
    """Monotonic time in seconds."""

    def now(self) -> float:
        """Return seconds since some fixed moment."""

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds."""


class Processes(Protocol):
    """The kernel's view of the processes behind guests."""

    def find(self, uuid: str) -> int | None:
        """Return the pid of the QEMU process with this domain uuid."""

    def threads(self, pid: int) -> Sequence[Thread]:
        """Return all threads of a process; empty if it has gone."""


class Monitor(Protocol):
    """A connection to one guest's QMP socket."""

    async def thread_roles(self) -> ThreadRoles:
        """Ask which threads are vCPUs and which do I/O."""

    async def resume(self) -> None:
        """Let the guest run, and return when QEMU has confirmed it."""

    async def close(self) -> None:
        """Hang up."""


class Monitors(Protocol):
    """Connects to QMP sockets."""

    async def connect(self, socket: str) -> Monitor:
        """Return a monitor that has negotiated; FailedError if nobody answers."""


class Hypervisor(Protocol):
    """libvirt: defines, starts and ends domains."""

    async def start_paused(self, xml: str) -> None:
        """Define the domain and start it with its vCPUs stopped; on failure nothing of it is left."""

    async def remove(self, uuid: str) -> bool:
        """End the domain and forget it; False if there was none. Another one of the same name is left alone."""

    async def domains(self) -> Sequence[LiveDomain]:
        """Return the domains of ours, by name."""

    def events(self) -> AsyncIterator[DomainEvent]:
        """Yield what happens to domains from now on."""


class GuestFiles(Protocol):
    """The run directory of each guest, with its sockets, log and overlays."""

    def directory(self, name: str) -> str:
        """Return the path of the guest's run directory, whether it exists or not."""

    async def prepare(self, name: str, overlays: Mapping[str, tuple[str, str]]) -> None:
        """Make it anew, with qcow2 overlays: path of the overlay to (image, format of the image)."""

    def discard(self, name: str) -> None:
        """Remove what only a running guest needs; the serial log stays."""

    def serial_log(self, name: str, start: int = 0) -> bytes:
        """Return what the serial port has printed so far, from byte `start` on; empty if there is no log."""

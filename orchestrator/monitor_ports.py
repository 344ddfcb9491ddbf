"""The port of guests' monitors: what may be asked of one QEMU."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LOADS = "inmigrate"
"""QEMU's word for a guest that has not got its state yet."""


@dataclass(frozen=True, slots=True)
class ThreadRoles:
    """Which thread is which, told by QEMU: vCPU index to thread id, I/O thread name to thread id."""

    vcpus: Mapping[int, int]
    iothreads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """What QEMU says it is: its version, and the machine type without an alias."""

    qemu: str
    machine: str


class Monitor(Protocol):
    """A connection to one guest's QMP socket."""

    async def thread_roles(self) -> ThreadRoles:
        """Ask which threads are vCPUs and which do I/O."""

    async def resume(self) -> None:
        """Let the guest run, and return when QEMU has confirmed it."""

    def begin_to_resume(self) -> Awaitable[None]:
        """Tell QEMU at once to let the guest run, and return what is done when it has confirmed that."""

    async def suspend(self) -> None:
        """Stop the guest's vCPUs, and return when QEMU has confirmed it."""

    async def status(self) -> str:
        """Ask for QEMU's own word: `life.RUNS`, one of `life.STANDS`, or what keeps the guest from running.

        `LOADS` while it waits for a state, or is being given one.
        """

    async def images(self) -> Mapping[str, str]:
        """Return the files that QEMU has opened as disks, each by its node's name."""

    async def disks(self) -> Mapping[str, int]:
        """Return the size in bytes of each disk that can be written to, by the path of its image."""

    async def machine(self) -> Machine:
        """Ask what QEMU this is, and which machine it is."""

    async def save(self, path: str, *, skip_shared: bool) -> None:
        """Write the state of a guest that stands still into a new file; it can go on afterwards, also on failure.

        That is possible once, until it has run again.

        With `skip_shared` what is a shared file of its memory is left out. FailedError says why it could not be done.
        """

    async def load(self, path: str, *, skip_shared: bool) -> None:
        """Give a state to a guest that waits for one, which stands still then. FailedError if it does not fit it."""

    async def stop_saving(self) -> None:
        """Have QEMU give up a save that somebody has begun; fine if nobody has."""

    async def human(self, command: str, vcpu: int) -> str:
        """Return what QEMU's human monitor says to a command, as seen from this vCPU."""

    async def powerdown(self) -> None:
        """Press the guest's power button, and return when QEMU has done so; whether the guest listens is its affair."""

    def events(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield QMP events, name and data, from the connection on, for one reader; at least those of `life.TOLD`.

        It ends when QEMU has hung up, since its process is ending, or when we have.
        """

    async def close(self) -> None:
        """Hang up."""


class Monitors(Protocol):
    """Connects to QMP sockets."""

    async def connect(self, socket: str) -> Monitor:
        """Return a monitor that has negotiated; FailedError if nobody answers."""

"""The ports: what the engine may ask of the outside world, as Protocols, and the values that come back.

Adapters live in `host/`, fakes in `tests/fakes/`; both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from orchestrator.core.files import GuestFile
from orchestrator.core.health import ChoresHealth
from orchestrator.core.journal import Head, Record
from orchestrator.core.placement import Placement
from orchestrator.core.xml.metadata import Metadata
from orchestrator.monitor_ports import Machine, Monitor, Monitors, ThreadRoles
from orchestrator.process_ports import Processes, Thread

__all__ = [
    "MOST_ENDINGS",
    "SHUT_OFF",
    "Chores",
    "ChoresHealth",
    "Clock",
    "DomainEvent",
    "DomainEventKind",
    "Ending",
    "GuestFiles",
    "Hypervisor",
    "Journal",
    "LiveDomain",
    "Machine",
    "Monitor",
    "Monitors",
    "Processes",
    "SerialText",
    "Store",
    "StoredGuest",
    "Thread",
    "ThreadRoles",
]


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


class Clock(Protocol):
    """Monotonic time in seconds."""

    def now(self) -> float:
        """Return seconds since some fixed moment."""

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds."""


EVENTS_THREAD = "libvirt-events"
"""The name of the thread that turns libvirt's event loop. It goes round without a rest while another thread reads an
answer from libvirt's daemon, so it must not go before that one."""


class Hypervisor(Protocol):
    """libvirt: defines, starts and ends domains."""

    async def start_paused(self, xml: str) -> None:
        """Define the domain and start it with its vCPUs stopped; on failure nothing of it is left."""

    async def remove(self, uuid: str) -> bool:
        """End the domain and forget it; False if there was none. Another one of the same name is left alone."""

    async def mark_paused(self, uuid: str, *, paused: bool) -> None:
        """Note in the domain's metadata whether its user has paused it, so that it is known after any crash."""

    async def mark_placed(self, uuid: str, placement: Placement) -> None:
        """Note in the domain's metadata where the guest is to be, so that it is known after any crash."""

    async def set_vcpus(self, uuid: str, cores: Sequence[int]) -> None:
        """Have as many vCPUs as there are cores in a domain that runs; the thread of a new one begins on its core.

        FailedError if that is refused; OutcomeUnknownError if the guest has not let go of a vCPU in time.
        """

    async def domains(self) -> Sequence[LiveDomain]:
        """Return the domains of ours, by name."""

    def events(self) -> AsyncIterator[DomainEvent]:
        """Yield what happens to domains from now on."""


class SerialText(NamedTuple):
    """A piece of what a serial port has printed; `end` is where to read on, in bytes from the very first."""

    text: bytes
    end: int


class GuestFiles(Protocol):
    """The run directory of each guest, with its sockets, log and overlays."""

    def directory(self, name: str) -> str:
        """Return the path of the guest's run directory, whether it exists or not."""

    async def prepare(
        self,
        name: str,
        overlays: Mapping[str, tuple[str, str]],
        pins: Mapping[str, GuestFile],
        owner: str,
        copies: Mapping[str, str],
    ) -> Mapping[str, int]:
        """Make it anew, with qcow2 overlays: path of the overlay to (image, format of the image).

        Before, each file of `pins` is opened with its owner's rights and held fast at a path in the directory, which is
        then that file, whatever its own name comes to mean. `copies` are overlays that were saved: path of the overlay
        to the file that it is to be a copy of. FailedError or HostError if that cannot be done.
        Returns the size of the disk in each pin that is an image, in bytes.
        """

    def discard(self, name: str) -> None:
        """Remove what only a running guest needs, pins among it; the serial log stays."""

    def serial_log(self, name: str, start: int = 0, most: int = -1) -> SerialText:
        """Return what the serial port has printed from byte `start` on, without what has been taken out of the log.

        At most `most` bytes are returned, unless that is negative.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGuest:
    """A guest as the store remembers it.

    `specification` is canonical JSON, `standing` a word of the core's, `cores` the CPU list that the guest keeps or was
    launched on, `started_at` wall-clock time in nanoseconds since 1970.
    """

    name: str
    uuid: str
    owner: str
    priority: int
    specification: str
    standing: str
    cores: str
    started_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a guest ended: `kind` in a word, `how` for its owner to read; `ended_at` in nanoseconds since 1970."""

    name: str
    owner: str
    uuid: str
    ended_at: int
    how: str
    kind: str


MOST_ENDINGS = 1000
"""How many endings the store keeps: the last ones."""


class Store(Protocol):
    """What outlives the scheduler. Each call is one transaction, and blocks: make them in one worker thread.

    After a HostError nothing of the call has happened, and it can be made again.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user has to be told of how it was found, a line each."""

    def guests(self) -> Sequence[StoredGuest]:
        """Return all guests, by name."""

    def put(self, guest: StoredGuest) -> None:
        """Remember a guest, in place of what was known of one of this name."""

    def remove(self, name: str, ending: Ending | None) -> None:
        """Forget a guest, if it is known, and remember how it ended, if it did."""

    def endings(self, owner: str | None = None, name: str | None = None) -> Sequence[Ending]:
        """Return how guests ended, the last one first; of one owner, of one name, if they are given."""

    def accounts(self) -> Mapping[str, str]:
        """Return the texts that were put last, by key; see `core.account`."""

    def put_accounts(self, texts: Mapping[str, str]) -> None:
        """Remember texts by key, all of them or none; an empty text forgets its key."""

    def replace_all(self, guests: Sequence[StoredGuest]) -> None:
        """Have these guests and no others; endings stay."""

    def close(self) -> None:
        """Let go of it; fine if that was done before."""


class Journal(Protocol):
    """The hash-chained log of privileged acts, see `core.journal`. Calls block: make them in one worker thread."""

    @property
    def head(self) -> Head:
        """How far it goes; to be kept elsewhere too."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user has to be told of how it was found, a line each."""

    def append(self, kind: str, body: Mapping[str, Any], at: int) -> Record:
        """Write a record, and return it when it is durable; `at` is wall-clock time in nanoseconds since 1970.

        After a HostError or UsageError the journal is as it was before.
        """

    def close(self) -> None:
        """Let go of it; fine if that was done before."""


class Chores(Protocol):
    """The process on the service core that makes things durable. No call blocks, and none fails for a full queue.

    Records are JSON objects of at most 64 KiB. One that does not fit into the queue is dropped and counted, and the log
    says at that place how many were.
    """

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to the event log, soon."""

    def metrics(self, sample: Mapping[str, Any]) -> None:
        """Append a record to the log of metrics, soon."""

    def watch_serial(self, guest: str, path: str, limit: int) -> None:
        """Keep what is appended to this file, which may come later; at most `limit` bytes, the last ones."""

    def forget_serial(self, guest: str) -> None:
        """Keep what is there still, then look no more; what was kept stays."""

    def serial_lost(self, guest: str) -> int:
        """Return how many bytes of a guest's serial output could not be kept, since the process began."""

    def flush(self) -> None:
        """Give the process what waits in the queue, as far as it takes it now; all other calls do so too."""

    def health(self) -> ChoresHealth:
        """Return how the chores are doing."""

"""What all fakes share: the domains, processes and files of one host that exists in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from orchestrator.core.pins import Standing
from orchestrator.core.xml.metadata import Metadata
from orchestrator.ports import SHUT_OFF, DomainEvent, DomainEventKind, Thread, ThreadRoles
from tests.fakes.clock import FakeClock

Told = tuple[str, Mapping[str, Any]]
"""A QMP event: name and data."""

_LAST_WORDS = {"shut down": (True, "guest-shutdown"), "destroyed": (False, "host-signal")}
"""What QEMU tells before it ends in such a way: whether the guest wanted it, and why."""


@dataclass(frozen=True, slots=True)
class Astray:
    """A thread of this name may run on these cores, whatever its pin says."""

    thread: str
    cores: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, each by the names of the guests that it befalls.

    `leads_to` has the file to which an image of the guest's disks leads, `grown` the bytes that its first disk has by
    the time its QEMU opens it, `start_seconds` is how long a start takes;
    `astray` holds from the start, `astray_once_running` from when the guest was continued; `hidden_vcpus` are guests
    whose QEMU denies having vCPU 0; `deaf` ones never answer when they are to stop.
    """

    prepare: Collection[str] = ()
    leads_to: Mapping[str, str] = field(default_factory=dict)
    grown: Mapping[str, int] = field(default_factory=dict)
    start: Collection[str] = ()
    start_seconds: Mapping[str, float] = field(default_factory=dict)
    no_process: Collection[str] = ()
    no_monitor: Collection[str] = ()
    dead_monitor: Collection[str] = ()
    hidden_vcpus: Collection[str] = ()
    dies_on_resume: Collection[str] = ()
    dies_on_stop: Collection[str] = ()
    cannot_be_removed: Collection[str] = ()
    ignores_power_button: Collection[str] = ()
    deaf: Collection[str] = ()
    works_on: Collection[str] = ()
    unmarkable: Collection[str] = ()
    keeps_vcpus: Collection[str] = ()
    refuses_vcpus: Collection[str] = ()
    no_back_ends: Collection[str] = ()
    cannot_be_saved: Collection[str] = ()
    cannot_be_restored: Collection[str] = ()
    astray: Mapping[str, Astray] = field(default_factory=dict)
    astray_once_running: Mapping[str, Astray] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class FakeDomain:
    """A domain, and the process behind it while `pid` is not None; it `ran` before, and runs `since` if that is set."""

    name: str
    uuid: str
    metadata: Metadata | None
    monitor: str
    threads: dict[int, Thread]
    roles: ThreadRoles
    pid: int | None
    state: str = "paused"
    ran: float = 0.0
    since: float | None = None
    images: dict[str, str] = field(default_factory=dict)
    disks: dict[str, int] = field(default_factory=dict)
    most_vcpus: int = 1
    content: bytes = b"fresh"
    incoming: bool = False
    written: bool = False
    listeners: list[asyncio.Queue[Told | None]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=lambda: {"info registers": SOME_REGISTERS})

    def used(self, now: float) -> float:
        """Return how many seconds of CPU time each vCPU has used: it is busy whenever it runs."""
        return self.ran + (0.0 if self.since is None else now - self.since)


@dataclass(slots=True)
class FakeBackEnd:
    """A process beside a guest: with the rights of whom it runs, None for ours, and where its one thread may run."""

    pid: int
    owner: str | None
    standing: Standing
    ended: bool = False


SOME_REGISTERS = """\
RIP=0000000000001000 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 0000000000000000 00000000 00209a00 DPL=0 CS64 [-R-]
"""
"""What a human monitor says of a processor."""


@dataclass(slots=True)
class FakeHost:
    """The host. `trace` has what was asked of it, in order, as ``what guest``; `files` guest to name to content,
    `realtime` are threads in such a class, `captive` guests whose cgroup lets nobody pin their threads,
    `closed` why a path cannot be opened with a user's rights, `clashes` what was wrong with who ran where, `disk` other
    files by path, `sizes` those of disks in images, `back_ends` what was started beside guests, by run directory and
    name, `workers` the kernel's threads for guests."""

    faults: Faults = field(default_factory=Faults)
    closed: dict[str, str] = field(default_factory=dict)
    clock: FakeClock = field(default_factory=FakeClock)
    domains: dict[str, FakeDomain] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)
    events: asyncio.Queue[DomainEvent] = field(default_factory=asyncio.Queue)
    clashes: list[str] = field(default_factory=list)
    disk: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    back_ends: dict[str, dict[str, FakeBackEnd]] = field(default_factory=dict)
    workers: dict[str, list[FakeBackEnd]] = field(default_factory=dict)
    realtime: set[int] = field(default_factory=set)
    dying: set[str] = field(default_factory=set)
    captive: set[str] = field(default_factory=set)
    pids: count[int] = field(default_factory=lambda: count(1000, 100))

    def named(self, name: str) -> FakeDomain | None:
        return next((domain for domain in self.domains.values() if domain.name == name), None)

    def beside(self, pid: int) -> FakeBackEnd | None:
        """Return the process of this number that works beside a guest, while it goes on."""
        those = [each for names in self.back_ends.values() for each in names.values()]
        those += [each for workers in self.workers.values() for each in workers]
        return next((each for each in those if each.pid == pid and not each.ended), None)

    def threads_of(self, domain: FakeDomain) -> list[Thread]:
        """Return the live threads of a domain, where the faults have them."""
        running = domain.state == "running"
        astray = self.faults.astray.get(domain.name)
        if running:
            astray = self.faults.astray_once_running.get(domain.name, astray)
        used, vcpus = domain.used(self.clock.now()), domain.roles.vcpus.values()
        workers = self.clock.now() if domain.name in self.faults.works_on else 0.0
        seen = [
            replace(thread, cpu_seconds=used if thread.tid in vcpus else workers) for thread in domain.threads.values()
        ]
        return [
            replace(thread, allowed=astray.cores) if astray is not None and thread.name == astray.thread else thread
            for thread in seen
        ]

    def note_clashes(self) -> None:
        """Note each core on which vCPUs of two guests may run at this moment."""
        seen: dict[int, str] = {}
        for domain in self.domains.values():
            if domain.state == "running":
                for core in {core for tid in domain.roles.vcpus.values() for core in domain.threads[tid].allowed}:
                    if core in seen:
                        self.clashes.append(f"core {core}: {seen[core]} and {domain.name}")
                    seen[core] = domain.name

    def prints(self, name: str, text: bytes) -> None:
        """Have a guest print on its serial port."""
        files = self.files[name]
        files["serial.log"] = files.get("serial.log", b"") + text

    def says(self, name: str, event: str, **data: Any) -> None:
        """Have a guest's QEMU tell something to whoever is connected."""
        domain = self.named(name)
        assert domain is not None
        for listener in domain.listeners:
            listener.put_nowait((event, data))

    def ends(self, name: str, detail: str = "QEMU failed") -> None:
        """Have a guest's process end without anybody here asking for it; its QEMU says why, unless it has crashed."""
        domain = self.named(name)
        assert domain is not None
        domain.pid, domain.state = None, SHUT_OFF
        if detail in _LAST_WORDS:
            guest, reason = _LAST_WORDS[detail]
            self.says(name, "SHUTDOWN", guest=guest, reason=reason)
        for listener in domain.listeners:
            listener.put_nowait(None)
        kind = DomainEventKind.CRASHED if detail == "QEMU failed" else DomainEventKind.STOPPED
        self.events.put_nowait(DomainEvent(name, kind, detail))

"""The audit of live threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from orchestrator.core.pool import SERVICE_CORE
from orchestrator.wiring.guests import live_domains

if TYPE_CHECKING:
    from orchestrator.core.pins import Stray
    from orchestrator.host.processes import ProcFs
    from orchestrator.ports import LiveDomain, Thread


@dataclass(frozen=True, slots=True, kw_only=True)
class PinReport:
    """What the kernel says of one guest's threads: how many, how many may run on reserved cores, which stray."""

    name: str
    pid: int | None
    threads: int
    on_reserved: int
    strays: tuple[str, ...]

    def describe(self) -> dict[str, object]:
        """Return the report as JSON's types."""
        return asdict(self)


@dataclass(slots=True)
class PinWatch:
    """Tells what changes from one audit to the next: which threads have strayed since, and which are back."""

    connect: str
    reserved: frozenset[int]
    astray: set[tuple[str, str]] = field(default_factory=set)

    async def look(self) -> list[tuple[str, str, str]]:
        """Audit once more; return what has changed: guest, ``astray`` or ``back``, and what was found."""
        reports = await audit_pins(self.connect, self.reserved)
        found = {(report.name, stray) for report in reports for stray in report.strays}
        changed = [(name, "astray", what) for name, what in sorted(found - self.astray)]
        changed += [(name, "back", what) for name, what in sorted(self.astray - found)]
        self.astray = found
        return changed


async def audit_pins(connect: str, reserved: frozenset[int]) -> list[PinReport]:
    """Compare the live threads of every guest with its placement; QEMU processes that libvirt lost are reported too."""
    from orchestrator.core.pins import strays, vcpu_threads_by_name
    from orchestrator.host.processes import ProcFs

    kernel = ProcFs()
    reports = []
    known = await live_domains(connect)
    for domain in known:
        threads = kernel.threads(domain.pid) if domain.pid else ()
        found = strays(
            {thread.tid: (thread.name, thread.allowed) for thread in threads},
            vcpu_threads_by_name({thread.tid: thread.name for thread in threads}),
            domain.metadata.vcpus,
            domain.metadata.emulator,
        )
        beside = _beside(kernel, domain) if domain.pid else ()
        reports.append(_report(domain.name, domain.pid, threads, reserved, tuple(map(str, (*found, *beside)))))
    for pid in sorted(kernel.emulators_of_ours() - {domain.pid for domain in known}):
        lost = ("libvirt does not know it, so it has no placement",)
        reports.append(_report(f"process {pid}", pid, kernel.threads(pid), reserved, lost))
    return reports


def _beside(kernel: ProcFs, domain: LiveDomain) -> Iterator[Stray]:
    """Yield the threads beside a guest's QEMU that stray: of its back ends, and of the kernel."""
    from orchestrator.core.pins import strays
    from orchestrator.wiring.backends import service_back_ends

    metadata = domain.metadata
    for name, pid in service_back_ends().processes(metadata.directory).items():
        threads = {thread.tid: (f"{thread.name}, {name}", thread.allowed) for thread in kernel.threads(pid or 0)}
        yield from strays(threads, {}, (), (SERVICE_CORE,))
    for tid in kernel.workers(domain.pid or 0):
        threads = {thread.tid: (thread.name, thread.allowed) for thread in kernel.threads(tid)}
        yield from strays(threads, {}, (), metadata.emulator)


def _report(
    name: str, pid: int | None, threads: Sequence[Thread], reserved: frozenset[int], found: tuple[str, ...]
) -> PinReport:
    astray = sum(not thread.allowed.isdisjoint(reserved) for thread in threads)
    return PinReport(name=name, pid=pid, threads=len(threads), on_reserved=astray, strays=found)

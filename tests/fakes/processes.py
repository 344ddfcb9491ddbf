"""/proc in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.core.pins import Standing
from orchestrator.errors import FailedError
from orchestrator.ports import Thread
from tests.fakes.host import FakeDomain, FakeHost

MEMORY = 50 << 20
"""What every guest has in memory."""


class FakeProcesses:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def find(self, uuid: str) -> int | None:
        domain = self._host.domains.get(uuid)
        return None if domain is None or domain.name in self._host.faults.no_process else domain.pid

    def threads(self, pid: int) -> Sequence[Thread]:
        domain = self._of(pid)
        if domain is None:
            beside = self._host.beside(pid)
            if beside is None:
                return ()
            allowed = beside.standing.allowed
            return (Thread(tid=pid, name="beside", allowed=allowed, last_core=min(allowed), cpu_seconds=0.0),)
        self._host.trace.append(f"read threads {domain.name}")
        return tuple(sorted(self._host.threads_of(domain), key=lambda thread: thread.tid))

    def activity(self, pid: int) -> str:
        domain = self._of(pid)
        return "" if domain is None else repr(self._host.threads_of(domain))

    def memory(self, pid: int) -> int:
        return 0 if self._of(pid) is None else MEMORY

    def standing(self, pid: int) -> Mapping[int, Standing]:
        domain, beside = self._of(pid), self._host.beside(pid)
        if beside is not None:
            return {pid: beside.standing}
        threads = [] if domain is None else self._host.threads_of(domain)
        return {thread.tid: Standing(thread.allowed, thread.tid in self._host.realtime) for thread in threads}

    def workers(self, pid: int) -> Sequence[int]:
        domain = self._of(pid)
        return () if domain is None else [each.pid for each in self._host.workers.get(domain.name, ())]

    def is_dying(self, pid: int) -> bool:
        domain = self._of(pid)
        return domain is None or domain.name in self._host.dying

    def calm(self, tid: int) -> None:
        beside = self._host.beside(tid)
        if beside is not None:
            beside.standing = beside.standing._replace(realtime=False)
        self._host.realtime.discard(tid)

    def gather(self, pid: int) -> None:
        domain = self._of(pid)
        if domain is not None:
            self._host.trace.append(f"gather {domain.name}")
            self._host.captive.discard(domain.name)

    def pin(self, tid: int, cores: frozenset[int]) -> None:
        beside = self._host.beside(tid)
        if beside is not None:
            beside.standing = beside.standing._replace(allowed=cores)
        for domain in self._host.domains.values():
            if tid in domain.threads and domain.name in self._host.captive:
                raise FailedError(f"thread {tid} cannot be moved: Invalid argument")
            if tid in domain.threads:
                domain.threads[tid] = replace(domain.threads[tid], allowed=cores, last_core=min(cores))

    def identity(self, pid: int) -> str:
        return f"{pid} of the fake" if self._of(pid) is not None else ""

    def freeze(self, pid: int, uuid: str) -> None:
        domain = self._host.domains.get(uuid)
        if domain is not None and domain.pid == pid:
            self._host.trace.append(f"freeze {domain.name}")

    def thaw(self, pid: int, uuid: str) -> None:
        domain = self._host.domains.get(uuid)
        if domain is not None and domain.pid == pid:
            self._host.trace.append(f"thaw {domain.name}")

    def kill(self, pid: int, uuid: str) -> None:
        domain = self._host.domains.get(uuid)
        if domain is not None and domain.pid == pid:
            self._host.trace.append(f"kill {domain.name}")
            self._host.ends(domain.name)

    def _of(self, pid: int) -> FakeDomain | None:
        return next((domain for domain in self._host.domains.values() if domain.pid == pid), None)

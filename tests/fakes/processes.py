"""/proc in memory."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ports import Thread
from tests.fakes.host import FakeDomain, FakeHost


class FakeProcesses:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def find(self, uuid: str) -> int | None:
        domain = self._host.domains.get(uuid)
        return None if domain is None or domain.name in self._host.faults.no_process else domain.pid

    def threads(self, pid: int) -> Sequence[Thread]:
        domain = self._of(pid)
        if domain is None:
            return ()
        self._host.trace.append(f"read threads {domain.name}")
        return tuple(sorted(self._host.threads_of(domain), key=lambda thread: thread.tid))

    def _of(self, pid: int) -> FakeDomain | None:
        return next((domain for domain in self._host.domains.values() if domain.pid == pid), None)

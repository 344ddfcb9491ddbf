"""Control groups of guests in memory."""

from __future__ import annotations

from orchestrator.core.bounds import Bounds
from tests.fakes.host import FakeHost


class FakeGroups:
    """`bounds` are those of each group that is there, by UUID; `inside` says which group each process is in."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.bounds: dict[str, Bounds] = {}
        self.inside: dict[int, str] = {}

    def confine(self, uuid: str, pid: int, bounds: Bounds) -> None:
        self._host.trace.append(f"confine {uuid}")
        self.bounds[uuid] = bounds
        self.inside[pid] = f"/guests/{uuid}"
        self._host.captive -= {domain.name for domain in self._host.domains.values() if domain.pid == pid}

    def elsewhere(self, uuid: str, pid: int) -> str:
        path = self.inside.get(pid, "")
        return "" if path == f"/guests/{uuid}" else path

    def release(self, uuid: str) -> None:
        self.bounds.pop(uuid, None)

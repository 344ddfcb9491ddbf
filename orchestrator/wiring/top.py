"""What `orchestrator top` looks at: the daemon's overview, and how busy the kernel says that each core is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.durations import about
from orchestrator.host.cpu_times import CpuTimes, read_cpu_times
from orchestrator.wiring.client import with_client

if TYPE_CHECKING:
    from orchestrator.service.client import Client


class Source:
    """The daemon at a socket, asked anew each time: it may have been restarted meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: Mapping[int, CpuTimes] = read_cpu_times()
        self._loads: dict[int, float] = {}

    async def overview(self) -> Any:
        """Return how cores, guests and users stand."""
        return await with_client(self._path, lambda client: client.overview())

    async def act(self, what: str, guest: str) -> None:
        """Pause or resume a guest."""
        await with_client(self._path, lambda client: client.act(what, guest))

    async def explain(self, guest: str) -> list[str]:
        """Return why a guest waits or where it runs, a line each."""

        async def ask(client: Client) -> Any:
            return await client.explain(guest)

        return list(_told(await with_client(self._path, ask)))

    def measure(self) -> None:
        """Take down how busy cores have been since the last time."""
        now = read_cpu_times()
        self._loads = {
            core: times.load_since(self._before[core]) for core, times in now.items() if core in self._before
        }
        self._before = now

    def loads(self) -> Mapping[int, float]:
        """Return the part of each core's time that was in use, between the last two measurements."""
        return self._loads


def _told(explanation: Any) -> Iterator[str]:
    yield f"{explanation['guest']} of {explanation['owner']}: {explanation['state']}"
    for reason in explanation["reasons"]:
        yield f"  {reason}"
    for holder in explanation["holders"]:
        until = holder["until"]
        left = "for good" if until is None else f"for {about(max(0, int(until * 10**9)))} more"
        cores = ",".join(map(str, holder["cores"]))
        yield f"  core {cores}: {holder['guest']} of {holder['owner']}, {left}"

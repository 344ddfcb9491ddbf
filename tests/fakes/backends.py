"""Back ends in memory: processes of one thread each, which begin where they belong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from posixpath import basename

from orchestrator.core.backends import BackEnd
from orchestrator.core.pins import Standing
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.errors import FailedError
from tests.fakes.host import FakeBackEnd, FakeHost


class FakeBackEnds:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    async def start(self, directory: str, owner: str | None, back_ends: Sequence[BackEnd]) -> None:
        guest = basename(directory)
        self._host.trace.append(f"start back ends {guest}")
        if guest in self._host.faults.no_back_ends:
            raise FailedError(f"{guest}: its back ends cannot be started: they were told to fail")
        here = Standing(frozenset({SERVICE_CORE}))
        self._host.back_ends[directory] = {
            each.name: FakeBackEnd(next(self._host.pids), owner, here) for each in back_ends
        }

    def processes(self, directory: str) -> Mapping[str, int | None]:
        found = self._host.back_ends.get(directory, {})
        return {name: None if each.ended else each.pid for name, each in found.items()}

    def last_words(self, directory: str) -> str:
        return "told to end" if any(each.ended for each in self._host.back_ends.get(directory, {}).values()) else ""

    async def end(self, directory: str) -> None:
        if self._host.back_ends.pop(directory, None) is not None:
            self._host.trace.append(f"end back ends {basename(directory)}")

    async def sweep(self, keep: Collection[str]) -> Sequence[str]:
        left = [directory for directory in sorted(self._host.back_ends) if directory not in keep]
        for directory in left:
            await self.end(directory)
        return [f"{basename(directory)}: ended" for directory in left]

"""QMP in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping

from orchestrator.errors import FailedError
from orchestrator.monitor_ports import LOADS
from orchestrator.ports import Machine, ThreadRoles
from tests.fakes.host import FakeDomain, FakeHost, Told


class FakeMonitor:
    def __init__(self, host: FakeHost, domain: FakeDomain) -> None:
        self._host = host
        self._domain = domain
        self._heard: asyncio.Queue[Told | None] = asyncio.Queue()
        domain.listeners.append(self._heard)

    async def thread_roles(self) -> ThreadRoles:
        self._ask("roles")
        roles = self._domain.roles
        if self._domain.name in self._host.faults.hidden_vcpus:
            return ThreadRoles({index: tid for index, tid in roles.vcpus.items() if index}, roles.iothreads)
        return roles

    async def resume(self) -> None:
        await self.begin_to_resume()

    def begin_to_resume(self) -> Awaitable[None]:
        confirmed = asyncio.get_running_loop().create_future()
        try:
            self._resume()
        except FailedError as error:
            confirmed.set_exception(error)
        else:
            confirmed.set_result(None)
        return confirmed

    def _resume(self) -> None:
        self._ask("continue")
        self._domain.state, self._domain.written = "running", False
        self._domain.since = self._host.clock.now() if self._domain.since is None else self._domain.since
        self._host.note_clashes()
        if self._domain.name in self._host.faults.dies_on_resume:
            self._host.ends(self._domain.name)

    async def suspend(self) -> None:
        if self._domain.name in self._host.faults.dies_on_stop:
            self._host.ends(self._domain.name)
        self._ask("stop")
        if self._domain.name in self._host.faults.deaf:
            await asyncio.get_running_loop().create_future()
        self._domain.state = "paused"
        self._domain.ran, self._domain.since = self._domain.used(self._host.clock.now()), None

    async def status(self) -> str:
        self._ask("status of")
        if self._domain.incoming:
            return LOADS
        return {"crashed": "guest-panicked"}.get(self._domain.state, self._domain.state)

    async def images(self) -> Mapping[str, str]:
        self._ask("images of")
        return self._domain.images

    async def disks(self) -> Mapping[str, int]:
        self._ask("disks of")
        return self._domain.disks

    async def machine(self) -> Machine:
        self._ask("machine of")
        return Machine("7.2.22", "pc-i440fx-7.2")

    async def save(self, path: str, *, skip_shared: bool) -> None:
        self._ask("save")
        assert self._domain.state == "paused"
        if self._domain.written:
            raise FailedError(f"{self._domain.monitor}: its state has been written since it last ran")
        if self._domain.name in self._host.faults.cannot_be_saved:
            raise FailedError(f"{self._domain.monitor}: the guest could not be saved: it was told to fail")
        if path in self._host.disk:
            raise FailedError(f"{path}: the file of the state cannot be opened: it is there already")
        self._domain.written = True
        self._host.disk[path] = self._domain.content + (b" without files" if skip_shared else b"")

    async def load(self, path: str, *, skip_shared: bool) -> None:
        self._ask("load")
        if not self._domain.incoming or self._domain.name in self._host.faults.cannot_be_restored:
            raise FailedError(f"{self._domain.monitor}: the guest could not be restored: it was told to fail")
        state = self._host.disk[path]
        assert state.endswith(b" without files") is skip_shared, "as it was saved"
        self._domain.content, self._domain.incoming = state.removesuffix(b" without files"), False

    async def stop_saving(self) -> None:
        self._ask("give up saving")

    async def human(self, command: str, vcpu: int) -> str:
        self._ask(f"say {command!r} to vCPU {vcpu} of")
        await asyncio.sleep(0)
        return self._domain.answers.get(command, "")

    async def powerdown(self) -> None:
        self._ask("press power button of")
        if self._domain.name not in self._host.faults.ignores_power_button:
            self._host.ends(self._domain.name, "shut down")

    async def events(self) -> AsyncIterator[Told]:
        while (told := await self._heard.get()) is not None:
            yield told

    async def close(self) -> None:
        self._host.trace.append(f"hang up {self._domain.name}")
        self._heard.put_nowait(None)

    def _ask(self, what: str) -> None:
        self._host.trace.append(f"{what} {self._domain.name}")
        if self._domain.pid is None or self._domain.name in self._host.faults.dead_monitor:
            raise FailedError(f"{self._domain.monitor}: {what!r} failed: the guest is gone")


class FakeMonitors:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    async def connect(self, socket: str) -> FakeMonitor:
        domain = next((each for each in self._host.domains.values() if each.monitor == socket), None)
        if domain is None or domain.pid is None or domain.name in self._host.faults.no_monitor:
            raise FailedError(f"{socket}: cannot talk to the guest's monitor: nobody listens")
        self._host.trace.append(f"connect {domain.name}")
        return FakeMonitor(self._host, domain)

"""A daemon on a host in memory, behind a real Unix socket, and callers who are whoever the test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.config import encode_guest, parse_guest
from orchestrator.core.discovery import discover
from orchestrator.core.model import Architecture
from orchestrator.core.orders import Notice
from orchestrator.core.policy import Policy
from orchestrator.core.policy_change import take_over
from orchestrator.core.xml.domain import Accelerator
from orchestrator.engine import Engine, Guest
from orchestrator.errors import FailedError, InvalidFileError, InvalidFilesError, OrchestratorError
from orchestrator.ports import SerialText
from orchestrator.service.api import Api, Desks
from orchestrator.service.callers import Peer
from orchestrator.service.client import Client
from orchestrator.service.desk import Desk
from orchestrator.service.door import Door
from orchestrator.service.events import Events
from orchestrator.service.limits import Lines
from orchestrator.service.messages import Definition, StartRequest
from orchestrator.service.overview import OverviewDesk
from orchestrator.service.policies import PolicyDesk
from orchestrator.service.serials import SerialDesk
from orchestrator.service.server import serving
from orchestrator.service.states import StateDesk
from orchestrator.service.views import AcceleratorView
from orchestrator.service.wanted import Wanted
from tests.fakes.contexts import contexts_on
from tests.fakes.engine import going, launcher_on
from tests.fakes.files import FakeFiles
from tests.fakes.host import FakeHost, Faults
from tests.fakes.processes import FakeProcesses

ROOT = Peer(pid=1, uid=0, gid=0)
ALICE = Peer(pid=2, uid=4_000_001, gid=4_000_001)
BOB = Peer(pid=3, uid=4_000_002, gid=4_000_002)
"""Users that no host has: they are called by their numbers."""


class FakeDefinitions:
    """Reads definitions as the real one, and looks at no file; raises `failure` if there is one."""

    failure: OrchestratorError | None = None

    def pinned(self, owner: str) -> bool:
        return owner != "root"

    async def read(self, request: StartRequest, owner: str) -> Wanted:
        if self.failure is not None:
            raise self.failure
        guests, invalid = [], []
        for each in request.definitions:
            try:
                spec = parse_guest(each.text.encode(), each.file, directory=each.directory).spec
            except InvalidFileError as error:
                invalid.append(error)
                continue
            names = [f"{spec.name}-{n + 1}" for n in range(request.count)] if request.count > 1 else [spec.name]
            guests += [self._guest(replace(spec, name=name), owner) for name in names]
        if invalid:
            raise InvalidFilesError(invalid)
        return Wanted(guests, {"x86_64": AcceleratorView("tcg", "the test says so")})

    def emulator(self, architecture: Architecture) -> str:
        return f"/usr/bin/qemu-system-{architecture}"

    def payload_quota(self, user: str) -> int:
        return 100 if user == ALICE.user else 1 << 20

    def _guest(self, spec: Any, owner: str) -> Guest:
        return Guest(
            spec=spec,
            specification=encode_guest(spec),
            owner=owner,
            emulator=self.emulator(spec.architecture),
            accelerator=Accelerator.TCG,
            pinned=self.pinned(owner),
        )


@dataclass
class FakeKeeper:
    """Keeps a policy; the cores that it reserves stay those of the first one."""

    policy: Policy = field(default_factory=Policy)

    def take(self, policy: Policy) -> tuple[str, ...]:
        self.policy, kept = take_over(self.policy, policy)
        return kept


@dataclass
class FakeSerials:
    """Logs of guests in memory; a console greets, and returns what is typed."""

    host: FakeHost
    attached_to: set[str] = field(default_factory=set)

    def log(self, guest: str, start: int, most: int) -> SerialText:
        return FakeFiles(self.host).serial_log(guest, start, most)

    @contextlib.asynccontextmanager
    async def attached(self, guest: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        if guest in self.attached_to:
            raise FailedError(f"{guest}: another console is attached to this guest")
        self.attached_to.add(guest)
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        echoing = asyncio.create_task(_echo(theirs))
        try:
            yield reader, writer
        finally:
            self.attached_to.discard(guest)
            writer.close()
            await echoing


async def _echo(port: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=port)
    writer.write(b"hello\n")
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1024):
            writer.write(data)
    writer.close()


@dataclass
class Daemon:
    """What a test needs of it; `caller` is who calls next, `log` what it has complained of."""

    host: FakeHost
    engine: Engine
    desk: Desk
    definitions: FakeDefinitions
    client: Client
    path: Path
    serials: FakeSerials
    overview: OverviewDesk
    caller: Peer = ROOT
    log: list[str] = field(default_factory=list)

    async def start(self, *texts: str, count: int = 1) -> Any:
        definitions = [Definition(text, f"{number}.toml", "/g") for number, text in enumerate(texts)]
        return await self.client.start(definitions, count)

    async def shown(self) -> dict[str, str]:
        return {guest["name"]: guest["state"] for guest in await self.client.guests()}


def definition(name: str = "web", mode: str = "exclusive", vcpus: int = 1) -> str:
    return (
        f'name = "{name}"\narchitecture = "x86_64"\nvcpus = {vcpus}\nmemory = "64 MiB"\nmode = "{mode}"\n'
        '[boot]\npayload = "guest.elf"\n'
    )


@contextlib.asynccontextmanager
async def daemon_on(
    directory: Path,
    faults: Faults | None = None,
    *,
    cpus: str = "0-5",
    events: Events | None = None,
    desk: type[Desk] = Desk,
    engine_type: type[Engine] = Engine,
    peer: Callable[[Any], Peer] | None = None,
    keeper: FakeKeeper | None = None,
    door: Door | None = None,
    lines: Lines | None = None,
    **options: Any,
) -> AsyncIterator[Daemon]:
    """Serve in `directory`; callers are who `Daemon.caller` is, unless `peer` looks for itself."""
    host = FakeHost() if faults is None else FakeHost(faults=faults)
    topology = discover({"cpu/online": cpus}, ())

    def note(notice: Notice) -> None:
        served.note(notice)

    engine = engine_type(topology, Policy(), launcher_on(host, topology), host.clock, on_notice=note)
    definitions = FakeDefinitions()
    serials = FakeSerials(host)
    served = desk(engine, definitions, events or Events(), host.clock, **options)
    path = directory / "socket"
    async with Client(path) as client, going(engine):
        overview = OverviewDesk(served, engine, FakeProcesses(host).memory)
        daemon = Daemon(host, engine, served, definitions, client, path, serials, overview)
        who = peer or (lambda _: daemon.caller)
        policies = PolicyDesk(served, engine, definitions, keeper or FakeKeeper())
        api = Api(
            served,
            door or Door(time.monotonic),
            daemon.log.append,
            peer=who,
            desks=Desks(
                policies,
                SerialDesk(served, serials),
                StateDesk(served, engine, contexts_on(host, engine)),
                overview,
            ),
        )
        async with serving(api.application(), path, lines, who):
            yield daemon
            served.events.close()


class SlowEngine(Engine):
    """Starts nothing before the gate is open."""

    gate: asyncio.Event

    async def start(self, guests: Sequence[Guest]) -> None:
        self.gate = asyncio.Event()
        await self.gate.wait()
        await super().start(guests)


@contextlib.contextmanager
def daemon_in_a_thread(directory: Path) -> Iterator[tuple[Daemon, asyncio.AbstractEventLoop]]:
    """Let a daemon serve in a thread of its own, and give it with the loop that it is on."""
    ready, made = threading.Event(), []

    async def serve() -> None:
        async with daemon_on(directory) as daemon:
            ended = asyncio.Event()
            made.append((daemon, asyncio.get_running_loop(), ended))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(timeout=60)
    daemon, loop, ended = made[0]
    try:
        yield daemon, loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(timeout=60)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110  (what is waited for sets no event)
            await asyncio.sleep(0.001)


async def http(path: Path, request: str, body: bytes = b"") -> tuple[int, bytes]:
    """Ask as `curl --unix-socket` does; return the status and the body."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    head = f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    head_text, _, content = answer.partition(b"\r\n\r\n")
    return int(head_text.split()[1]), content

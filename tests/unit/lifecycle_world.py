"""An engine on a host in memory whose guests come to trouble, and what was written down of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.config import encode_guest
from orchestrator.core.discovery import discover
from orchestrator.core.durations import Duration
from orchestrator.core.lifecycle import State
from orchestrator.core.model import KernelBoot, OnCrash, Watchdog
from orchestrator.core.orders import Notice
from orchestrator.core.policy import Policy
from orchestrator.core.xml.domain import Domain
from orchestrator.engine import Engine, Guest
from orchestrator.launch import Launcher
from tests.fakes.engine import going, guest, launcher_on
from tests.fakes.host import FakeHost, Faults

S = 10**9
PANIC = "its kernel panicked"
Act = Callable[[FakeHost], object]


@dataclass
class Diary:
    """What the engine wants written down: names begun, and how each ended; `losses` are bytes of serial output.

    `meanwhile` happens while an intent is being written.
    """

    begun: list[str] = field(default_factory=list)
    endings: list[tuple[str, str, str]] = field(default_factory=list)
    losses: dict[str, int] = field(default_factory=dict)
    told: list[Notice] = field(default_factory=list)
    intents: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def intend(self, kind: str, body: Mapping[str, Any]) -> None:
        self.intents.append((kind, body))
        if self.meanwhile is not None:
            await self.meanwhile()

    async def intend_end(self, kind: str, body: Mapping[str, Any]) -> None:
        await self.intend(kind, body)

    def began(self, domain: Domain) -> None:
        self.begun.append(domain.spec.name)

    def ended(self, domain: Domain, how: str, kind: str) -> None:
        self.endings.append((domain.spec.name, how, kind))

    def tell(self, notice: Notice) -> None:
        self.told.append(notice)

    def moved(self, domain: Domain) -> None:
        pass

    def limit_serial(self, limit: int) -> None:
        pass

    def serial_lost(self, guest: str) -> int:
        return self.losses.get(guest, 0)

    def keep_accounts(self, texts: Mapping[str, str]) -> None:
        pass


@dataclass
class Stage:
    """One host, its engine, and the diary."""

    host: FakeHost
    engine: Engine
    diary: Diary

    async def start(self, *guests: Guest) -> None:
        await self.engine.start(guests)

    async def rest(self, seconds: float = 0.01) -> None:
        """Let what can happen happen; it takes hardly any time."""
        await self.host.clock.sleep(seconds)

    def state(self, name: str = "beat") -> State:
        return self.engine.state(name)

    def ended(self, name: str = "beat") -> str | None:
        return self.engine.guests[name].ended

    def continued(self, name: str = "beat") -> int:
        """How often it was let run."""
        return self.host.trace.count(f"continue {name}")

    async def until_it_runs(self, name: str) -> None:
        while self.state(name) is not State.RUNNING:
            await self.rest()


def stage(
    faults: Faults | None = None, cpus: str = "0-3", adapt: Callable[[Launcher], Launcher] = lambda launcher: launcher
) -> Stage:
    """Return a stage with so many cores; `adapt` changes what the engine reaches the host by."""
    host, diary, topology = FakeHost(faults or Faults()), Diary(), discover({"cpu/online": cpus})
    launcher = adapt(launcher_on(host, topology))
    return Stage(host, Engine(topology, Policy(), launcher, host.clock, records=diary), diary)


def play(scene: Stage, story: Callable[[Stage], Awaitable[None]]) -> Stage:
    """Let a story happen while the engine runs."""

    async def whole() -> None:
        async with going(scene.engine):
            await story(scene)
            scene.engine._driver.raise_defect()

    asyncio.run(whole())
    return scene


def linux(name: str = "beat", vcpus: int = 1, **wishes: Any) -> Guest:
    """A guest that may reboot, and listens to its power button."""
    small = guest(name, vcpus, **wishes)
    spec = replace(small.spec, boot=KernelBoot(kernel="/images/vmlinuz"))
    return replace(small, spec=spec, specification=encode_guest(spec))


def seconds(number: float) -> Duration:
    return Duration(int(number * S))


def panics(host: FakeHost) -> None:
    host.says("beat", "GUEST_PANICKED", action="pause")


def beat(on_crash: OnCrash, **wishes: Any) -> Guest:
    return guest(on_crash=on_crash, heartbeat_limit=seconds(3), watchdog=Watchdog.PAUSE, **wishes)


async def in_trouble(scene: Stage, act: Act, on_crash: OnCrash, **wishes: Any) -> None:
    await scene.start(beat(on_crash, **wishes))
    await scene.rest(0.3)
    act(scene.host)
    while scene.state() in (State.WAITING, State.RUNNING):
        await scene.rest()
    await scene.rest()

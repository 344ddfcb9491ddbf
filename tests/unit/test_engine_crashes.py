"""A scheduler that is killed after any step of any plan: the next one finds no guest lost and no core with two holders.

Steps are counted by what was done to the host; nothing but the host is left to the next scheduler, and a store that may
be gone too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.config import decode_guest
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode
from orchestrator.core.xml.domain import Domain
from orchestrator.engine import Engine, Guest
from orchestrator.ports import SHUT_OFF
from orchestrator.recorder import Recorder
from tests.fakes.chores import FakeChores
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import FakeDomain, FakeHost, Faults
from tests.fakes.journal import FakeJournal
from tests.fakes.store import FakeStore

CPUS = "0-6"


def web(name: str = "web") -> Guest:
    return guest(name, 2, mode=Mode.EXCLUSIVE, max_vcpus=4)


NOTHING = Faults()

Act = Callable[[Engine], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Request:
    """What is asked, after `before` has been, and of whom."""

    subject: str
    ask: Act
    before: tuple[Act, ...] = ()
    faults: Faults = NOTHING


REQUESTS = {
    "start an exclusive guest": Request("new", lambda engine: engine.start([web("new")])),
    "start a shared guest": Request("new", lambda engine: engine.start([guest("new")])),
    "start that fails": Request("new", lambda engine: engine.start([web("new")]), faults=Faults(start=["new"])),
    "stop an exclusive guest": Request("web", lambda engine: engine.stop(["web"])),
    "stop a shared guest": Request("s", lambda engine: engine.stop(["s"])),
    "kill": Request("web", lambda engine: engine.kill("web")),
    "pause an exclusive guest": Request("web", lambda engine: engine.pause("web")),
    "pause a shared guest": Request("s", lambda engine: engine.pause("s")),
    "resume an exclusive guest": Request(
        "web", lambda engine: engine.resume("web"), (lambda engine: engine.pause("web"),)
    ),
    "resume a shared guest": Request("s", lambda engine: engine.resume("s"), (lambda engine: engine.pause("s"),)),
    "move": Request("web", lambda engine: engine.move("web", [5, 6])),
    "move that fails": Request("web", lambda engine: engine.move("web", [5, 6]), faults=Faults(unmarkable=["web"])),
    "grow": Request("web", lambda engine: engine.resize("web", 3)),
    "grow that fails": Request("web", lambda engine: engine.resize("web", 3), faults=Faults(refuses_vcpus=["web"])),
    "shrink": Request("web", lambda engine: engine.resize("web", 2), (lambda engine: engine.resize("web", 3),)),
}
PAUSES = {"pause an exclusive guest", "pause a shared guest", "resume an exclusive guest", "resume a shared guest"}


async def until_killed(host: FakeHost, request: Request, steps: int) -> bool:
    """Ask, and be killed after so many steps; False if it was done before."""
    engine = engine_on(host, cpus=CPUS)
    running = asyncio.create_task(engine.run())
    await engine.start([web(), guest("db", mode=Mode.EXCLUSIVE), guest("s"), *(guest(name) for name in "ab")])
    await host.clock.sleep(0.25)
    for act in request.before:
        await act(engine)
    host.faults, before = request.faults, len(host.trace)
    asking = asyncio.create_task(request.ask(engine))
    while len(host.trace) < before + steps and not asking.done():  # noqa: ASYNC110 (nobody tells of a step)
        await asyncio.sleep(0)
    done = asking.done()
    for task in (running, asking):
        task.cancel()
    await asyncio.gather(running, asking, return_exceptions=True)
    host.faults = Faults()
    host.events = asyncio.Queue()
    return not done


def alive(host: FakeHost) -> Iterator[FakeDomain]:
    return (domain for domain in host.domains.values() if domain.state != SHUT_OFF)


def where(domain: FakeDomain) -> set[int]:
    return {core for thread in domain.threads.values() for core in thread.allowed}


def check_taken_over(host: FakeHost, engine: Engine) -> None:
    """Everything that is there is known, and is where its locks and its metadata say."""
    holders = engine.holders()
    assert {domain.name for domain in alive(host)} == {name for name, each in engine.guests.items() if not each.over}
    for domain in alive(host):
        assert domain.metadata is not None
        held = {core for core, holder in holders.items() if holder == domain.name}
        if domain.state == "running":
            assert where(domain) <= held, domain.name
        if engine.guests[domain.name].domain.spec.mode is Mode.EXCLUSIVE:
            assert held == set(domain.metadata.held) >= where(domain), domain.name
            assert len(domain.roles.vcpus) == len(domain.metadata.vcpus)


async def remembered(store: FakeStore, domains: list[Domain]) -> list[tuple[str, str, str]]:
    recorder = Recorder(FakeJournal(), store, FakeChores(), lambda: 0, serial_limit=1 << 20)
    await recorder.reconcile(domains)
    await recorder.close()
    return [(each.name, each.owner, each.specification) for each in store.guests()]


@pytest.mark.parametrize("what", REQUESTS)
def test_whoever_comes_back_after_any_step_finds_a_sound_state(what: str) -> None:
    request = REQUESTS[what]

    async def story(steps: int) -> bool:
        host = FakeHost()
        killed = await until_killed(host, request, steps)
        host.clashes.clear()
        engine = engine_on(host, cpus=CPUS)
        await engine.adopt(decode_guest)
        assert host.clashes == []
        domains = [each.domain for each in engine.guests.values()]
        stale = FakeStore()
        await remembered(stale, [replace(each, owner=each.owner) for each in domains[:2]])
        assert await remembered(stale, domains) == await remembered(FakeStore(), domains)
        async with going(engine):
            await host.clock.sleep(0.01)
            check_taken_over(host, engine)
            continued = len(host.trace)
            await host.clock.sleep(0.6)
            check_taken_over(host, engine)
            began = {line.split()[1] for line in host.trace[continued:] if line.startswith("continue ")}
            assert began | {domain.name for domain in alive(host) if domain.state == "running"} >= set("ab")
            assert engine.state("db") is State.RUNNING
            subject = request.subject if request.subject in engine.guests else None
            if subject and not engine.guests[subject].over and what not in PAUSES:
                assert engine.state(subject) in (State.RUNNING, State.WAITING)
            if subject and not engine.guests[subject].over and engine.state(subject) is State.PAUSED:
                await engine.resume(subject)  # it waits for nobody but its user
            await engine.stop(list(engine.guests))
            assert engine.holders() == {}
        assert host.clashes == []
        assert list(alive(host)) == []
        return killed

    steps = 0
    while asyncio.run(story(steps)):
        steps += 1
    assert steps >= 1


def test_a_core_with_two_guests_would_be_noticed() -> None:
    """The check itself: two exclusive guests that say they are on the same cores."""
    host = FakeHost()

    async def story() -> list[str]:
        await until_killed(host, REQUESTS["kill"], 0)
        one, other = host.named("web"), host.named("db")
        assert one is not None
        assert other is not None
        other.metadata = one.metadata
        other.threads = {tid: replace(thread, allowed=frozenset({2})) for tid, thread in other.threads.items()}
        engine = engine_on(host, cpus=CPUS)
        notes = await engine.adopt(decode_guest)
        with pytest.raises(AssertionError):
            check_taken_over(host, engine)
        return notes

    assert any("cannot be taken over, and is left alone" in note for note in asyncio.run(story()))

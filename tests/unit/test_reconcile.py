"""Changes made on a host in memory: what a run that was killed leaves half done is completed by the next one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from orchestrator.config import decode_guest
from orchestrator.core.desired import Desired, What, changes
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode
from orchestrator.core.placement import assign
from orchestrator.engine import Engine, Guest
from orchestrator.reconcile import Made, make, present
from tests.fakes.engine import engine_on, going, guest, launcher_on
from tests.fakes.host import FakeHost, Faults

WEB, DB = (replace(guest(name, mode=Mode.EXCLUSIVE), by_policy=True) for name in ("web", "db"))


@dataclass
class Hands:
    engine: Engine

    async def start(self, guest: Guest) -> None:
        await self.engine.start([guest])

    async def stop(self, name: str) -> None:
        await self.engine.stop([name])


async def policy_run(engine: Engine, *wanted: Guest) -> list[str]:
    """Do what a policy run does; return what it changed."""
    there = [present(each, engine.state(name)) for name, each in engine.guests.items()]
    todo = changes([Desired(spec=each.spec, owner=each.owner) for each in wanted], there)
    made = await make(todo, {each.spec.name: each for each in wanted}, Hands(engine))
    return [f"{each.change.what} {each.change.guest} {each.exit_code}" for each in made]


async def killed_halfway(host: FakeHost) -> None:
    """Leave what a run leaves that was killed between the launch of a guest and its first turn."""
    engine = engine_on(host)
    launcher = launcher_on(host, engine.topology)
    placement = assign(WEB.spec, [2], engine.topology)
    await launcher.launch(WEB.placed(placement, launcher.files.directory("web")))


def test_a_start_that_was_cut_short_is_completed() -> None:
    async def story() -> None:
        host = FakeHost()
        await killed_halfway(host)
        engine = engine_on(host)
        await engine.adopt(decode_guest)
        async with going(engine):
            assert await policy_run(engine, WEB, DB) == ["start db 0"], "whoever takes it over lets it go on"
            assert {engine.state(name) for name in ("web", "db")} == {State.RUNNING}
            assert await policy_run(engine, WEB, DB) == []
        assert {domain.state for domain in host.domains.values()} == {"running"}

    asyncio.run(story())


def test_what_its_user_has_paused_stays_so_over_a_restart_of_the_scheduler() -> None:
    async def story() -> None:
        host = FakeHost()
        engine = engine_on(host)
        async with going(engine):
            assert await policy_run(engine, WEB, DB) == ["start db 0", "start web 0"]
            await engine.pause("web")
            assert await policy_run(engine, WEB, DB) == []
        again = engine_on(host)
        await again.adopt(decode_guest)
        async with going(again):
            assert await policy_run(again, WEB, DB) == []
            assert (again.state("web"), again.state("db")) == (State.PAUSED, State.RUNNING)
            assert await policy_run(again) == ["stop db 0", "stop web 0"], "the mark has outlived the scheduler"
        assert host.domains == {}

    asyncio.run(story())


def test_each_guest_is_seen_to_by_itself() -> None:
    async def story() -> None:
        host = FakeHost(faults=Faults(start=["web"]))
        engine = engine_on(host)
        async with going(engine):
            assert await policy_run(engine, WEB, DB) == ["start db 0", "start web 1"]
            assert engine.state("db") is State.RUNNING

    asyncio.run(story())


def test_what_cannot_be_had_is_told_with_the_code_of_its_family() -> None:
    async def story() -> list[Made]:
        engine = engine_on(FakeHost())
        shared = guest("beat", mode=Mode.SHARED)
        todo = changes([Desired(spec=shared.spec, owner="ann")], [], rotates=False)
        return list(await make(todo, {}, Hands(engine)))

    (made,) = asyncio.run(story())
    assert (made.change.what, made.exit_code) == (What.UNSCHEDULED, 4)
    assert made.error.startswith("beat: cannot be started: it is shared, and no scheduler runs ")

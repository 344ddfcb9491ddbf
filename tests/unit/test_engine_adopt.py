"""A scheduler that comes back: what runs is taken over as it is, and no guest is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.config import decode_guest, encode_guest
from orchestrator.core.model import Mode
from orchestrator.core.payloads import PayloadMap, PayloadWish
from orchestrator.engine import Engine
from orchestrator.payload_ports import NewPayload
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import FakeHost
from tests.fakes.payloads import FakePayloads

NAMES = ["web", "a", "b", "c", "d"]


async def crowd(host: FakeHost) -> Engine:
    """A server and four shared guests on four pool cores, whose scheduler was killed after some turns."""
    engine = engine_on(host, cpus="0-5")
    async with going(engine):
        await engine.start([guest("web", mode=Mode.EXCLUSIVE), *(guest(name, 1 + (name == "d")) for name in "abcd")])
        await host.clock.sleep(0.73)
    return engine


async def come_back(host: FakeHost, cpus: str = "0-5") -> tuple[Engine, list[str]]:
    engine = engine_on(host, cpus=cpus)
    return engine, await engine.adopt(decode_guest)


def running(host: FakeHost) -> set[str]:
    return {domain.name for domain in host.domains.values() if domain.state == "running"}


def test_guests_go_on_where_they_are_and_take_turns_again() -> None:
    host = FakeHost()

    async def story() -> None:
        await crowd(host)
        before = running(host)
        host.trace.clear()
        engine, notes = await come_back(host)
        assert notes == []
        assert running(host) == before
        assert not [line for line in host.trace if line.startswith(("stop", "continue"))]
        assert set(engine.guests) == set(NAMES)
        async with going(engine):
            await host.clock.sleep(3)
            assert engine.holders()[2] == "web"
            await engine.stop(NAMES)

    asyncio.run(story())
    continued = {line.removeprefix("continue ") for line in host.trace if line.startswith("continue ")}
    assert continued == {"a", "b", "c", "d"}
    assert host.clashes == []
    assert host.domains == {}


@pytest.mark.parametrize("moment", range(12))
def test_a_scheduler_killed_between_any_two_steps_of_a_hand_over_leaves_no_core_with_two_guests(moment: int) -> None:
    host = FakeHost()

    async def story() -> None:
        engine = engine_on(host, cpus="0-4")
        going_on = asyncio.create_task(engine.run())
        await engine.start([guest(name) for name in "abcde"])
        await host.clock.sleep(0.3)
        for _ in range(moment):  # as many turns of the event loop into what comes next
            await asyncio.sleep(0)
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
        again, _ = await come_back(host, cpus="0-4")
        async with going(again):
            await host.clock.sleep(2)
            assert len(running(host)) <= 3

    asyncio.run(story())
    assert host.clashes == []
    assert {domain.name for domain in host.domains.values()} == set("abcde")


def test_a_guest_that_was_paused_stays_so_until_it_is_resumed() -> None:
    host = FakeHost()

    async def story() -> None:
        first = engine_on(host, cpus="0-5")
        async with going(first):
            await first.start([guest("a"), guest("web", mode=Mode.EXCLUSIVE)])
            await first.pause("a")
            await first.pause("web")
            await host.clock.sleep(1)
        engine, notes = await come_back(host)
        assert notes == []
        async with going(engine):
            await host.clock.sleep(1)
            assert running(host) == set()
            assert engine.explain("a").reasons == ("it was paused and gets no turns until it is resumed",)
            await engine.resume("a")
            await engine.resume("web")
            await host.clock.sleep(1)
            assert running(host) == {"a", "web"}

    asyncio.run(story())
    assert host.clashes == []


def test_two_shared_guests_found_on_one_core_are_put_in_order() -> None:
    host = FakeHost()

    async def story() -> None:
        await crowd(host)
        domain = host.named("a")
        other = host.named("b")
        assert domain is not None
        assert other is not None
        for each in (domain, other):
            each.state = "running"
            each.threads = {tid: replace(thread, allowed=frozenset({3})) for tid, thread in each.threads.items()}
        engine, notes = await come_back(host)
        assert any(note.startswith(("a: was stopped: ", "b: was stopped: ")) for note in notes)
        host.clashes.clear()
        async with going(engine):
            await host.clock.sleep(3)

    asyncio.run(story())
    assert host.clashes == []


def test_an_exclusive_guest_whose_threads_were_moved_away_is_moved_back() -> None:
    host = FakeHost()

    async def story() -> None:
        await crowd(host)
        web = host.named("web")
        assert web is not None
        web.threads = {tid: replace(thread, allowed=frozenset({0, 1})) for tid, thread in web.threads.items()}
        _, notes = await come_back(host)
        assert notes == ["web: its threads were not where its placement wants them, and were moved back"]
        assert {core for thread in web.threads.values() for core in thread.allowed} == {2}

    asyncio.run(story())


def test_a_guest_whose_cores_are_nobodys_any_more_is_left_alone_and_told_of() -> None:
    host = FakeHost()

    async def story() -> None:
        await crowd(host)
        engine, notes = await come_back(host, cpus="0-1,3-5")
        assert [note.partition(":")[0] for note in notes] == ["web"]
        assert "is left alone: not for guests: core 2 (absent)" in notes[0]
        assert "web" not in engine.guests
        assert "web" in running(host)

    asyncio.run(story())


def test_guests_that_were_taken_over_are_not_ended_with_those_that_were_started() -> None:
    host = FakeHost()

    async def story() -> None:
        await crowd(host)
        engine, _ = await come_back(host)
        async with going(engine):
            await engine.start([guest("new")])
            await engine.stop_all()

    asyncio.run(story())
    assert {domain.name for domain in host.domains.values()} == set(NAMES)


def test_a_killed_guest_is_gone_at_once() -> None:
    host = FakeHost()

    async def story() -> None:
        engine = engine_on(host)
        async with going(engine):
            await engine.start([guest("a")])
            await engine.kill("a")
            assert engine.holders() == {}
            assert engine.guests["a"].ended == "killed"

    asyncio.run(story())
    assert host.domains == {}


@pytest.mark.parametrize("cut", [True, False])
def test_who_has_been_taken_over_and_ends_for_its_payload_is_known_to_have(cut: bool) -> None:
    host = FakeHost()

    async def story() -> None:
        first = engine_on(host)
        payloads = first.payloads
        assert isinstance(payloads, FakePayloads)
        payloads.sources["/tools"] = b"tools"
        wanted = NewPayload(path="/tools", user=None, owner="alice", name="tools", public=False, quota=99)
        digest = (await payloads.add(wanted)).digest
        plain = guest("a")
        spec = replace(plain.spec, payload=PayloadWish(map=PayloadMap.WINDOW, digest=digest))
        async with going(first):
            await first.start([replace(plain, spec=spec, specification=encode_guest(spec))])
        engine, _ = await come_back(host)
        again = engine.payloads
        assert isinstance(again, FakePayloads)
        again.content = {place: b"" if cut else content for place, content in payloads.content.items()}
        async with going(engine):
            host.ends("a")
            await host.clock.sleep(1)
            ended = engine.guests["a"].ended or ""
            assert ended.startswith("its payload was changed under it: /payloads/alice/") is cut, ended

    asyncio.run(story())

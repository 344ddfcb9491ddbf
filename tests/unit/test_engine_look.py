"""What the engine sees of running guests: their serial lines, their threads, their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from orchestrator.core.orders import Happening
from orchestrator.engine import Engine, RunningGuest
from orchestrator.errors import FailedError
from orchestrator.ports import DomainEvent, DomainEventKind
from orchestrator.together import all_or_first_failure
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import Astray, FakeHost, Faults
from tests.unit.lifecycle_world import Stage, play, stage


def watched(host: FakeHost, act: Callable[[Engine, RunningGuest], None], name: str = "beat") -> RunningGuest:
    """Start a guest, act, and return it."""
    engine = engine_on(host)

    async def story() -> None:
        await engine.start([guest(name)])
        act(engine, engine.guests[name])

    asyncio.run(story())
    return engine.guests[name]


def after_printing(*pieces: bytes) -> RunningGuest:
    """Return a guest that was looked at after it had printed each of these."""
    host = FakeHost()

    def act(engine: Engine, _: RunningGuest) -> None:
        for piece in pieces:
            host.prints("beat", piece)
            engine.look()

    return watched(host, act)


def test_a_guest_that_said_nothing() -> None:
    seen = after_printing(b"")
    assert (seen.heartbeats, seen.last_line) == (0, "")


def test_heartbeats_are_counted_once_however_the_output_is_cut() -> None:
    text = b"".join(b"heartbeat %d\r\n" % number for number in range(1, 8))
    for cut in (1, 2, 3, 11, 12, 13, len(text)):
        seen = after_printing(*(text[at : at + cut] for at in range(0, len(text), cut)))
        assert (seen.heartbeats, seen.last_line) == (7, "heartbeat 7"), cut


def test_only_whole_lines_that_begin_so_are_heartbeats() -> None:
    seen = after_printing(b"booting\n\n  \nno heartbeat 1\nheartbeats\nheartbeat 1\nheartbeat 2")
    assert seen.heartbeats == 1
    assert seen.last_line == "heartbeat 1"
    assert seen.unfinished == b"heartbeat 2"


def test_a_line_that_never_ends_is_cut_not_kept() -> None:
    seen = after_printing(*[b"x" * 3000] * 5)
    assert len(seen.unfinished) == 4096
    assert seen.log_size == 15000
    seen = after_printing(*[b"x" * 3000] * 5, b"\nheartbeat 1\n")
    assert (seen.heartbeats, seen.last_line) == (1, "heartbeat 1")


def test_what_a_terminal_would_obey_is_left_out_of_the_last_line() -> None:
    seen = after_printing("\x1b[31mrot\x07 [bold]grün\xff".encode("latin-1") + b"\n")
    assert seen.last_line == "[31mrot [bold]gr\N{REPLACEMENT CHARACTER}n\N{REPLACEMENT CHARACTER}"


def test_a_thread_that_strays_later_is_remembered_even_once_it_is_back() -> None:
    host = FakeHost()

    def act(engine: Engine, _: RunningGuest) -> None:
        for cores in (frozenset({1, 2}), frozenset({2})):
            host.faults = Faults(astray={"beat": Astray("worker", cores)})
            engine.look()

    seen = watched(host, act)
    assert seen.watch.looks == 4  # two proofs, and these two
    assert list(seen.watch.offenders.values()) == ["worker"]


def test_a_process_that_has_gone_is_never_looked_at_again() -> None:
    host = FakeHost()

    def act(engine: Engine, seen: RunningGuest) -> None:
        engine.look()
        pid = seen.pid
        host.ends("beat")
        engine.look()
        domain = host.named("beat")
        assert domain is not None
        domain.pid = pid  # the kernel gives the number to another process
        host.faults = Faults(astray={"beat": Astray("worker", frozenset({0}))})
        engine.look()

    seen = watched(host, act)
    assert seen.pid is None
    assert seen.watch.looks == 3  # two proofs, and this one
    assert seen.watch.offenders == {}


def test_the_last_words_of_a_guest_that_ended_are_still_read() -> None:
    host = FakeHost()

    def act(engine: Engine, _: RunningGuest) -> None:
        host.ends("beat")
        engine.look()
        host.prints("beat", b"heartbeat 1\npanic\n")
        engine.look()

    seen = watched(host, act)
    assert (seen.heartbeats, seen.last_line) == (1, "panic")


def test_events_of_strangers_are_no_matter() -> None:
    host = FakeHost()
    engine = engine_on(host)

    async def story() -> None:
        async with going(engine):
            await engine.start([guest()])
            host.events.put_nowait(DomainEvent("stranger", DomainEventKind.CRASHED, "crashed"))
            await host.clock.sleep(1)

    asyncio.run(story())
    assert engine.guests["beat"].ended is None
    assert engine.state("beat") == "running"


@pytest.mark.parametrize(("detail", "crashed"), [("shut down", False), ("QEMU failed", True)])
def test_how_a_guest_ended_is_recorded_and_nothing_is_left_of_it(detail: str, crashed: bool) -> None:
    host = FakeHost()
    engine = engine_on(host)

    async def story() -> None:
        async with going(engine):
            await engine.start([guest()])
            host.ends("beat", detail)
            await host.clock.sleep(1)

    asyncio.run(story())
    seen = engine.guests["beat"]
    assert (seen.ended, seen.crashed, seen.pid) == (detail, crashed, None)
    assert engine.holders() == {}
    assert host.domains == {}


def test_stopping_ends_all_and_tells_who_had_ended_before() -> None:
    host = FakeHost()
    engine = engine_on(host)

    async def story() -> None:
        async with going(engine):
            await engine.start([guest("one"), guest("two")])
            host.ends("one", "shut down")
            await host.clock.sleep(1)
            await engine.stop_all()

    asyncio.run(story())
    assert {name: seen.ended for name, seen in engine.guests.items()} == {"one": "shut down", "two": "stopped"}
    assert host.domains == {}


def test_a_guest_that_is_ended_in_the_middle_of_a_hand_over_has_not_crashed() -> None:
    host = FakeHost()
    engine = engine_on(host, cpus="0-2")

    async def story() -> None:
        async with going(engine):
            await engine.start([guest("one"), guest("two")])
            for _ in range(5):
                await host.clock.sleep(0.1)
            host.faults = Faults(dead_monitor=["one", "two"])  # as QEMU answers while it ends
            await engine.stop_all()

    asyncio.run(story())
    assert [(seen.ended, seen.crashed) for seen in engine.guests.values()] == [("stopped", False)] * 2
    assert host.domains == {}


def test_a_guest_that_cannot_be_removed_keeps_none_of_the_others() -> None:
    host = FakeHost(Faults(cannot_be_removed=["one"]))
    engine = engine_on(host)

    async def story() -> None:
        await engine.start([guest("one"), guest("two"), guest("three")])
        await engine.stop_all()

    with pytest.raises(FailedError, match="one was told to stay"):
        asyncio.run(story())
    assert [domain.name for domain in host.domains.values()] == ["one"]


def test_all_acts_come_to_their_ends_before_the_first_failure_is_raised() -> None:
    done: list[str] = []

    async def act(name: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if name.startswith("bad"):
            raise FailedError(name)
        done.append(name)

    with pytest.raises(FailedError, match=r"^bad first$"):
        asyncio.run(all_or_first_failure([act("bad first", 3), act("bad sooner", 0), act("slow", 9)]))
    assert done == ["slow"]
    asyncio.run(all_or_first_failure([]))


def test_lost_output_is_told_when_it_begins_and_when_it_has_doubled_for_each_guest() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest("beat"), guest("other"))
        for lost in (0, 1000, 1001, 1023, 1024, 5000):
            scene.diary.losses["beat"] = lost
            scene.engine.look()

    played = play(stage(), story)
    told = [notice for notice in played.diary.told if notice.what is Happening.OUTPUT_LOST]
    assert [(notice.guest, notice.why.split()[0]) for notice in told] == [("beat", n) for n in ("1000", "1024", "5000")]
    assert {name: each.serial_lost for name, each in played.engine.guests.items()} == {"beat": 5000, "other": 0}


def test_of_a_guest_that_stands_still_only_what_it_does_is_asked_but_now_and_then() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest("beat"), guest("busy"))
        await scene.engine.pause("beat")
        scene.host.trace.clear()
        for _ in range(120):
            scene.engine.look()

    reads = play(stage(), story).host.trace
    assert reads.count("read threads busy") == 120
    assert 2 <= reads.count("read threads beat") <= 3


def test_a_guest_that_stands_still_and_does_something_all_the_same_is_looked_at() -> None:
    async def story(scene: Stage) -> None:
        await scene.start(guest("beat"))
        await scene.engine.pause("beat")
        for _ in range(3):
            scene.engine.look()
        scene.host.trace.clear()
        domain = scene.host.named("beat")
        assert domain is not None
        domain.ran += 5.0
        scene.engine.look()

    assert "read threads beat" in play(stage(), story).host.trace

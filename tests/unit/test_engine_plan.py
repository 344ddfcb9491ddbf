"""Starts of several guests: all find a place beside what is there already, or none is started, with every reason."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.core.model import EmulatorThreads, Mode
from orchestrator.engine import Engine, Guest, require_pool
from orchestrator.errors import HostError, RefusedError
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import FakeHost


def started(host: FakeHost, *batches: list[Guest]) -> Engine:
    engine = engine_on(host)

    async def story() -> None:
        async with going(engine):
            for guests in batches:
                await engine.start(guests)

    asyncio.run(story())
    return engine


def held(engine: Engine) -> dict[str, list[int]]:
    cores: dict[str, list[int]] = {}
    for core, name in sorted(engine.holders().items()):
        cores.setdefault(name, []).append(core)
    return cores


def exclusive(name: str, vcpus: int = 1, **wishes: EmulatorThreads) -> Guest:
    return guest(name, vcpus, mode=Mode.EXCLUSIVE, **wishes)


def test_the_widest_exclusive_guest_chooses_first() -> None:
    engine = started(FakeHost(), [exclusive("small"), exclusive("wide", 5)])
    assert held(engine) == {"wide": [2, 3, 4, 5, 6], "small": [7]}


def test_shared_guests_that_fit_run_at_once_beside_the_exclusive_ones() -> None:
    engine = started(FakeHost(), [guest("a", 2), exclusive("web", 2), guest("b", 2)])
    assert {name: len(cores) for name, cores in held(engine).items()} == {"web": 2, "a": 2, "b": 2}


def test_an_isolated_emulator_takes_one_more_core() -> None:
    host = FakeHost()
    engine = started(host, [exclusive("web", 2, emulator=EmulatorThreads.ISOLATE)])
    placement = engine.guests["web"].domain.placement
    assert (placement.vcpus, placement.emulator) == ((2, 3), (4,))


def test_cores_of_running_exclusive_guests_are_taken() -> None:
    assert held(started(FakeHost(), [exclusive("first", 2)], [exclusive("second")])) == {"first": [2, 3], "second": [4]}


def test_what_a_killed_run_left_defined_holds_no_core_and_is_replaced() -> None:
    host = FakeHost()
    started(host, [guest("beat", 2)])
    host.ends("beat")
    host.events = asyncio.Queue()
    engine = started(host, [guest("beat", 6)])
    assert held(engine) == {"beat": [2, 3, 4, 5, 6, 7]}
    assert [(domain.name, domain.state) for domain in host.domains.values()] == [("beat", "running")]


def test_every_reason_is_in_the_one_refusal_and_nothing_is_started() -> None:
    host = FakeHost()
    batch = [guest("beat"), guest("twin"), guest("twin"), exclusive("huge", 7), guest("fits")]
    with pytest.raises(RefusedError) as refused:
        started(host, [exclusive("beat")], batch)
    message = str(refused.value)
    assert message.startswith("nothing was started: ")
    assert "beat: guest name: wanted beat, not in use, available alice has a guest of this name, active" in message
    assert "twin: guest name: wanted twin, not in use, available alice has a guest of this name, starting" in message
    assert "huge: free pool cores: wanted 7, available 5" in message
    assert "fits" not in message
    assert refused.value.exit_code == 3
    assert [domain.name for domain in host.domains.values()] == ["beat"]


def test_more_shared_guests_than_cores_take_turns() -> None:
    host = FakeHost()
    engine = engine_on(host, cpus="0-3")
    names = [f"g{number}" for number in range(5)]

    async def story() -> None:
        async with going(engine):
            await engine.start([guest(name) for name in names])
            for _ in range(20):
                await host.clock.sleep(0.1)
            await engine.stop_all()

    asyncio.run(story())
    continued = [line for line in host.trace if line.startswith("continue ")]
    assert {line.removeprefix("continue ") for line in continued} == set(names)
    assert len(continued) > 20
    assert host.clashes == []
    assert all(engine.guests[name].cores <= {2, 3} for name in names)
    assert host.domains == {}


def test_the_same_guest_has_the_same_uuid_and_another_directory_another() -> None:
    assert guest().uuid("/run/beat") == guest().uuid("/run/beat") != guest().uuid("/run/elsewhere/beat")


def test_a_host_without_a_pool_is_told_of_the_lab() -> None:
    with pytest.raises(
        HostError, match=r"no pool core.*of its 2 online cores.*orchestrator lab run -- COMMAND"
    ) as told:
        require_pool(engine_on(FakeHost(), cpus="0-1").topology)
    assert told.value.exit_code == 4
    require_pool(engine_on(FakeHost(), cpus="0-2").topology)

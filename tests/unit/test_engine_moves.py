"""Exclusive guests that are moved and resized while they run: where their threads are, and what is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestrator.core.model import Mode
from orchestrator.engine import Engine, Guest
from orchestrator.errors import FailedError, OutcomeUnknownError, RefusedError, UsageError
from tests.fakes.engine import engine_on, going, guest
from tests.fakes.host import Astray, FakeDomain, FakeHost, Faults


def web(vcpus: int = 2, most: int | None = 4) -> Guest:
    return guest("web", vcpus, mode=Mode.EXCLUSIVE, max_vcpus=most)


def domain(host: FakeHost) -> FakeDomain:
    found = host.named("web")
    assert found is not None
    return found


def pinned(host: FakeHost) -> dict[str, list[int]]:
    return {thread.name: sorted(thread.allowed) for thread in domain(host).threads.values()}


def held(engine: Engine, name: str = "web") -> list[int]:
    return sorted(core for core, holder in engine.holders().items() if holder == name)


def tell(faults: Faults, act: Callable[[FakeHost, Engine], Coroutine[Any, Any, None]]) -> tuple[FakeHost, Engine]:
    """A server of two vCPUs on 2-3 with shared guests around it, and what is done to it."""
    host = FakeHost(faults)
    engine = engine_on(host)

    async def story() -> None:
        async with going(engine):
            await engine.start([web(), *(guest(name) for name in "abcdef")])
            await host.clock.sleep(0.5)
            await act(host, engine)
            await host.clock.sleep(0.5)

    asyncio.run(story())
    assert host.clashes == []
    return host, engine


def test_every_thread_of_a_moved_guest_is_on_its_new_cores_and_its_metadata_say_so() -> None:
    async def move(host: FakeHost, engine: Engine) -> None:
        host.trace.clear()
        await engine.move("web", [6, 7])
        mine = [line for line in host.trace if line.endswith(" web") and not line.startswith("read")]
        assert mine == ["stop web", "roles web", "place web", "continue web"]

    host, engine = tell(Faults(), move)
    assert pinned(host) == {"qemu-system-x86": [6, 7], "worker": [6, 7], "CPU 0/TCG": [6], "CPU 1/TCG": [7]}
    metadata = domain(host).metadata
    assert metadata is not None
    assert (metadata.vcpus, metadata.emulator, metadata.held) == ((6, 7), (6, 7), (6, 7))
    assert held(engine) == [6, 7]
    assert domain(host).state == "running"
    assert engine.guests["web"].domain.placement.vcpus == (6, 7)


def test_a_guest_grows_with_each_new_thread_on_its_own_core_and_shrinks_again() -> None:
    async def grow(host: FakeHost, engine: Engine) -> None:
        host.trace.clear()
        await engine.resize("web", 4)
        assert not [line for line in host.trace if line.startswith(("stop web", "continue web"))]
        assert pinned(host)["CPU 3/TCG"] == [5]
        assert held(engine) == [2, 3, 4, 5]
        await engine.resize("web", 3)

    host, engine = tell(Faults(), grow)
    assert pinned(host) == {
        "qemu-system-x86": [2, 3, 4],
        "worker": [2, 3, 4],
        "CPU 0/TCG": [2],
        "CPU 1/TCG": [3],
        "CPU 2/TCG": [4],
    }
    metadata = domain(host).metadata
    assert metadata is not None
    assert metadata.held == (2, 3, 4)
    assert held(engine) == [2, 3, 4]


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Faults(unmarkable=["web"]), "its metadata cannot be changed"),
        (Faults(refuses_vcpus=["web"]), "it was told to refuse"),
    ],
)
def test_a_guest_that_cannot_grow_is_as_before(faults: Faults, said: str) -> None:
    async def grow(_: FakeHost, engine: Engine) -> None:
        error = OutcomeUnknownError if faults.unmarkable else FailedError
        with pytest.raises(error, match=said):
            await engine.resize("web", 3)

    host, engine = tell(faults, grow)
    assert pinned(host)["qemu-system-x86"] == [2, 3]
    assert domain(host).state == "running"
    assert held(engine) == ([2, 3, 4] if faults.unmarkable else [2, 3])
    assert not engine.guests["web"].over


def test_a_guest_that_does_not_let_go_of_a_vcpu_keeps_its_cores_until_it_has() -> None:
    async def shrink(host: FakeHost, engine: Engine) -> None:
        await engine.resize("web", 4)
        with pytest.raises(OutcomeUnknownError, match="it did not let go in time"):
            await engine.resize("web", 2)
        assert held(engine) == [2, 3, 4, 5]
        assert pinned(host)["CPU 3/TCG"] == [5]
        host.faults = Faults()  # it has thought better of it
        await engine.resize("web", 2)

    host, engine = tell(Faults(keeps_vcpus=["web"]), shrink)
    assert held(engine) == [2, 3]
    assert "CPU 2/TCG" not in pinned(host)


def test_a_thread_that_does_not_stay_takes_the_guest_back_and_it_goes_on() -> None:
    async def move(host: FakeHost, engine: Engine) -> None:
        host.faults = Faults(astray={"web": Astray("worker", frozenset({2, 3}))})
        with pytest.raises(FailedError, match="worker"):
            await engine.move("web", [4, 5])
        assert held(engine) == [2, 3]

    host, _ = tell(Faults(), move)
    assert domain(host).state == "running"
    assert pinned(host)["CPU 0/TCG"] == [2]


def test_who_cannot_be_put_back_either_keeps_both_places_and_goes_on() -> None:
    async def move(host: FakeHost, engine: Engine) -> None:
        host.faults = Faults(astray={"web": Astray("worker", frozenset({1}))})
        with pytest.raises(OutcomeUnknownError, match="could not be put back"):
            await engine.move("web", [4, 5])
        assert held(engine) == [2, 3, 4, 5]
        assert domain(host).state == "running"
        host.faults = Faults()
        await engine.move("web", [4, 5])
        assert held(engine) == [4, 5]

    tell(Faults(), move)


def test_a_refusal_has_all_reasons_and_a_name_that_is_not_there_is_a_mistake() -> None:
    async def ask(_: FakeHost, engine: Engine) -> None:
        with pytest.raises(RefusedError, match="web: vCPUs: wanted 9, available 2 to 4"):
            await engine.resize("web", 9)
        with pytest.raises(RefusedError, match="a: exclusive guest"):
            await engine.move("a", [4])
        with pytest.raises(UsageError, match="ghost: there is no such guest"):
            await engine.move("ghost")
        await engine.move("web")  # it is well where it is
        assert held(engine) == [2, 3]

    tell(Faults(), ask)


def test_a_guest_that_dies_while_it_is_moved_is_given_up_with_its_cores() -> None:
    async def move(host: FakeHost, engine: Engine) -> None:
        moving = asyncio.create_task(engine.move("web", [6, 7]))
        await asyncio.sleep(0)
        host.ends("web")
        with pytest.raises(FailedError):
            await moving

    _, engine = tell(Faults(), move)
    assert held(engine) == []
    assert engine.guests["web"].ended == "QEMU failed"


def test_a_stop_waits_for_the_end_of_a_move() -> None:
    async def move(host: FakeHost, engine: Engine) -> None:
        moving = asyncio.create_task(engine.move("web", [6, 7]))
        await asyncio.sleep(0)
        await engine.stop(["web"])
        await moving
        assert host.named("web") is None

    _, engine = tell(Faults(), move)
    assert held(engine) == []

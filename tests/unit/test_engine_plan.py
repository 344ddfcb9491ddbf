"""Plans: all guests find cores beside what runs already, or none is started and every reason is told."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.core.model import EmulatorThreads
from orchestrator.core.xml.domain import Domain
from orchestrator.engine import Engine, Guest, require_pool
from orchestrator.errors import HostError, RefusedError
from tests.fakes.engine import engine_on, guest
from tests.fakes.host import FakeHost


def plan(engine: Engine, *guests: Guest) -> list[Domain]:
    return asyncio.run(engine.plan(guests))


def held(domains: list[Domain]) -> dict[str, tuple[int, ...]]:
    return {domain.spec.name: domain.placement.held for domain in domains}


def test_guests_get_cores_of_their_own_and_stay_in_the_order_they_were_named() -> None:
    domains = plan(engine_on(FakeHost()), guest("small"), guest("wide", vcpus=3), guest("other"))
    assert list(held(domains)) == ["small", "wide", "other"]
    cores = [core for domain in domains for core in domain.placement.held]
    assert sorted(cores) == [2, 3, 4, 5, 6]


def test_the_widest_guest_chooses_first() -> None:
    domains = plan(engine_on(FakeHost()), guest("small"), guest("wide", vcpus=5))
    assert held(domains) == {"wide": (2, 3, 4, 5, 6), "small": (7,)}


def test_an_isolated_emulator_takes_one_more_core() -> None:
    (domain,) = plan(engine_on(FakeHost()), guest(vcpus=2, emulator=EmulatorThreads.ISOLATE))
    assert domain.placement.vcpus == (2, 3)
    assert domain.placement.emulator == (4,)


def test_cores_of_running_guests_are_taken() -> None:
    host = FakeHost()
    engine = engine_on(host)

    async def story() -> list[Domain]:
        await engine.start_all(await engine.plan([guest("first", vcpus=2)]))
        return await engine.plan([guest("second")])

    assert held(asyncio.run(story())) == {"second": (4,)}


def test_what_a_killed_run_left_defined_holds_no_core_and_is_replaced() -> None:
    host = FakeHost()
    engine = engine_on(host)

    async def story() -> list[Domain]:
        await engine.start_all(await engine.plan([guest("beat", vcpus=2)]))
        host.ends("beat")
        domains = await engine.plan([guest("beat", vcpus=6)])
        await engine.start_all(domains)
        return domains

    assert held(asyncio.run(story())) == {"beat": (2, 3, 4, 5, 6, 7)}
    assert [(domain.name, domain.state) for domain in host.domains.values()] == [("beat", "running")]


def test_a_plan_starts_nothing() -> None:
    host = FakeHost()
    plan(engine_on(host), guest())
    assert host.trace == []
    assert host.domains == {}


def test_every_reason_is_in_the_one_refusal() -> None:
    host = FakeHost()
    engine = engine_on(host)

    async def story() -> None:
        await engine.start_all(await engine.plan([guest("beat")]))
        await engine.plan([guest("beat"), guest("twin"), guest("twin"), guest("huge", vcpus=6), guest("fits")])

    with pytest.raises(RefusedError) as refused:
        asyncio.run(story())
    message = str(refused.value)
    assert message.startswith("nothing was started: ")
    assert "beat: a guest of this name runs already; `orchestrator stop beat` ends it" in message
    assert "twin: two of the definitions have this name; give one of them another" in message
    assert "huge: free pool cores: wanted 6, available 5" in message
    assert "fits" not in message
    assert refused.value.exit_code == 3
    assert [domain.name for domain in host.domains.values()] == ["beat"]


def test_the_same_guest_has_the_same_uuid_and_another_directory_another() -> None:
    one, again = (plan(engine_on(FakeHost()), guest())[0] for _ in range(2))
    elsewhere = guest().placed(one.placement, "/run/elsewhere/beat")
    assert one.uuid == again.uuid
    assert one.uuid != elsewhere.uuid


def test_a_host_without_a_pool_is_told_of_the_lab() -> None:
    with pytest.raises(
        HostError, match=r"no pool core.*of its 2 online cores.*orchestrator lab run -- COMMAND"
    ) as told:
        require_pool(engine_on(FakeHost(), cpus="0-1").topology)
    assert told.value.exit_code == 4
    require_pool(engine_on(FakeHost(), cpus="0-2").topology)

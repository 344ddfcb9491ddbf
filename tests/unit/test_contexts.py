"""Save, restore, snapshot, template and clone through the engine, on a host in memory; also cut off at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config import decode_guest
from orchestrator.contexts import Contexts
from orchestrator.core.agenda import WarmPool
from orchestrator.core.context import Kind, Mark
from orchestrator.core.discovery import discover
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Disk, DiskFormat, Mode
from orchestrator.core.placement import Placement
from orchestrator.core.policy import Policy
from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import RamFile
from orchestrator.core.xml.render import render
from orchestrator.engine import Engine, Guest
from orchestrator.errors import FailedError, OrchestratorError, RefusedError, UsageError
from orchestrator.wanted import Origin
from tests.fakes.contexts import contexts_on
from tests.fakes.engine import going, guest, launcher_on
from tests.fakes.host import FakeHost, Faults
from tests.fakes.states import FakeEmulators, FakeStates

OVERLAY = Disk(path="/images/root.raw", format=DiskFormat.RAW, overlay=True)


class World:
    """An engine and its contexts on a host, and what a test asks of them."""

    def __init__(self, host: FakeHost, states: FakeStates | None = None) -> None:
        self.host = host
        topology = discover({"cpu/online": "0-7"}, ())
        launcher = launcher_on(host, topology)
        self.engine = Engine(topology, Policy(), launcher, host.clock)
        self.states, self.emulators = states or FakeStates(host), FakeEmulators()
        self.contexts = contexts_on(host, self.engine, self.states, self.emulators)

    def content(self, name: str) -> bytes:
        """Return what the memory of a guest holds."""
        domain = self.host.named(name)
        assert domain is not None
        return domain.content

    def becomes(self, name: str, content: bytes) -> None:
        """Have a guest's memory, and its disk, hold this."""
        domain = self.host.named(name)
        assert domain is not None
        domain.content = content
        if "vda.overlay.qcow2" in self.host.files[name]:
            self.host.files[name]["vda.overlay.qcow2"] = content

    def kept(self) -> set[str]:
        return {path for path in self.host.disk if not path.startswith("/states/.unfinished")}

    def unfinished(self) -> set[str]:
        return {path for path in self.host.disk if path.startswith("/states/.unfinished")}


def story(act: Callable[[World], Coroutine[Any, Any, None]], *guests: Guest, host: FakeHost | None = None) -> World:
    world = World(host or FakeHost())

    async def tell() -> None:
        async with going(world.engine):
            await world.engine.start(guests)
            await act(world)

    asyncio.run(tell())
    return world


@pytest.mark.parametrize("mode", Mode)
def test_a_saved_guest_gives_its_cores_on_and_goes_on_where_it_was(mode: Mode) -> None:
    async def act(world: World) -> None:
        world.becomes("beat", b"at five")
        context = await world.contexts.save("beat", "five")
        assert (context.guest, context.owner, context.machine) == ("beat", "alice", "pc-i440fx-7.2")
        assert world.engine.state("beat") is State.STOPPED
        assert world.engine.guests["beat"].ended == "saved as five"
        assert world.engine.holders() == {}
        assert world.host.named("beat") is None
        assert await world.contexts.restore("five") == "beat"
        assert world.content("beat") == b"at five"
        assert world.host.files["beat"]["vda.overlay.qcow2"] == b"at five"
        assert world.host.clashes == []

    world = story(act, guest(mode=mode, disks=(OVERLAY,)))
    assert world.unfinished() == set()
    loaded, roles, proved = (world.host.trace.index(f"{what} beat") for what in ("load", "roles", "continue"))
    assert roles < loaded < len(world.host.trace)
    assert proved < loaded, "the first continue is the first start's"
    assert world.host.trace[loaded : loaded + 3] == ["load beat", "read threads beat", "continue beat"]


def test_the_machine_type_is_the_one_it_was_saved_with() -> None:
    async def act(world: World) -> None:
        await world.contexts.save("beat", "five")
        held = await world.contexts.shelf.find(Kind.SAVED, "five")
        origin = (await world.contexts.shelf.guest(held)).origin
        assert origin is not None
        assert origin.machine == "pc-i440fx-7.2"

    story(act, guest())


def test_what_does_not_fit_is_refused_with_every_reason_and_nothing_is_started() -> None:
    async def act(world: World) -> None:
        await world.contexts.save("beat", "five")
        world.emulators.here = replace(world.emulators.here, version="6.2")
        world.states.changed["/payloads/heartbeat.elf"] = Mark("/payloads/heartbeat.elf", 2, 2)
        with pytest.raises(RefusedError, match=r"five: cannot be loaded here: .*6\.2 here is older; .*changed since"):
            await world.contexts.restore("five")
        assert world.host.named("beat") is None

    story(act, guest())


def test_a_name_that_is_taken_is_refused_and_the_guest_goes_on() -> None:
    async def act(world: World) -> None:
        await world.contexts.save("one", "five")
        with pytest.raises(RefusedError, match="five: there is a saved guest of this name"):
            await world.contexts.save("two", "five")
        assert world.engine.state("two") in (State.RUNNING, State.WAITING)

    story(act, guest("one"), guest("two"))


def test_while_its_guest_is_there_a_state_cannot_be_restored() -> None:
    async def act(world: World) -> None:
        await world.contexts.save("beat", "five")
        await world.contexts.restore("five")
        with pytest.raises(RefusedError, match="not in use"):
            await world.contexts.restore("five")

    story(act, guest())


@pytest.mark.parametrize("paused", [True, False])
def test_a_guest_that_cannot_be_saved_goes_on_as_it_did(paused: bool) -> None:
    async def act(world: World) -> None:
        if paused:
            await world.engine.pause("beat")
        with pytest.raises(FailedError, match="told to fail"):
            await world.contexts.save("beat", "five")
        assert (world.engine.state("beat") is State.PAUSED) is paused
        await world.host.clock.sleep(1)
        domain = world.host.named("beat")
        assert domain is not None
        assert domain.state == ("paused" if paused else "running")

    world = story(act, guest(), host=FakeHost(Faults(cannot_be_saved=["beat"])))
    assert world.host.disk == {}


def test_a_state_that_cannot_be_loaded_leaves_no_guest_and_stays() -> None:
    host = FakeHost(Faults(cannot_be_restored=["beat"]))

    async def act(world: World) -> None:
        await world.contexts.save("beat", "five")
        kept = world.kept()
        with pytest.raises(FailedError, match="told to fail"):
            await world.contexts.restore("five")
        assert world.host.named("beat") is None
        assert world.engine.holders() == {}
        assert world.kept() == kept

    story(act, guest(), host=host)


def test_a_snapshot_is_of_memory_and_disk_together_and_can_be_gone_back_to_again_and_again() -> None:
    async def act(world: World) -> None:
        world.becomes("beat", b"first")
        await world.contexts.snapshot("beat", "a")
        assert world.engine.state("beat") in (State.RUNNING, State.WAITING)
        for _ in range(2):
            world.becomes("beat", b"later")
            await world.contexts.revert("beat", "a")
            assert world.content("beat") == b"first"
            assert world.host.files["beat"]["vda.overlay.qcow2"] == b"first"
        await world.engine.stop(["beat"])
        await world.contexts.revert("beat", "a")
        assert world.content("beat") == b"first"
        await world.contexts.remove(Kind.SNAPSHOT, "beat@a")
        with pytest.raises(UsageError, match="beat@a: there is no such snapshot"):
            await world.contexts.revert("beat", "a")

    assert story(act, guest(disks=(OVERLAY,))).host.disk == {}


def test_a_disk_that_is_written_in_place_has_no_snapshot_and_makes_no_template() -> None:
    async def act(world: World) -> None:
        with pytest.raises(RefusedError, match="beat: no snapshot can be made of it: its disk vda is written in place"):
            await world.contexts.snapshot("beat", "a")
        with pytest.raises(RefusedError, match="beat: no template can be made of it: its disk vda is written in place"):
            await world.contexts.template("beat", "a")
        assert world.engine.state("beat") in (State.RUNNING, State.WAITING)

    story(act, guest(disks=(replace(OVERLAY, overlay=False),)))


def test_clones_go_on_where_the_template_was_each_with_an_identity_of_its_own() -> None:
    async def act(world: World) -> None:
        world.becomes("beat", b"warm")
        await world.contexts.template("beat", "warm")
        assert set(world.engine.guests) == {"beat"}
        assert world.engine.state("beat") in (State.RUNNING, State.WAITING)
        world.becomes("beat", b"later")
        cloned = await world.contexts.clone("warm", 2)
        assert cloned.names == ("warm-1", "warm-2")
        assert cloned.notes[0].startswith("clones go on with the template's random numbers")
        assert [world.content(name) for name in cloned.names] == [b"warm", b"warm"]
        found = [world.host.named(name) for name in ("beat", *cloned.names)]
        assert len({domain.uuid for domain in found if domain is not None}) == 3
        assert world.host.files["warm-1"]["vda.overlay.qcow2"] == b"warm"
        assert (await world.contexts.clone("warm", 1)).names == ("warm-3",)
        assert (await world.contexts.clone("warm", 1, ("other",))).names == ("other",)
        assert world.host.clashes == []

    world = story(act, guest(disks=(OVERLAY,)))
    assert not any("whole" in path for path in world.host.disk)
    assert any(path.endswith("/warm/state") for path in world.host.disk)


def test_a_staged_clone_stands_still_until_it_is_resumed_and_is_known_to_be_paused() -> None:
    async def act(world: World) -> None:
        await world.contexts.template("beat", "warm")
        await world.contexts.clone("warm", 1, staged=True)
        assert world.engine.state("warm-1") is State.PAUSED
        assert "continue warm-1" not in world.host.trace
        domain = world.host.named("warm-1")
        assert domain is not None
        assert domain.metadata is not None
        assert domain.metadata.paused
        await world.engine.resume("warm-1")
        await world.host.clock.sleep(1)
        assert "continue warm-1" in world.host.trace

    story(act, guest())


def test_a_warm_pool_is_kept_filled_and_a_clone_from_it_is_only_resumed() -> None:
    pool = WarmPool(template="warm", count=2)

    async def act(world: World) -> None:
        (why,) = await world.contexts.keep_warm([pool])
        assert why.startswith("warm pool of warm: warm: there is no such template")
        await world.contexts.template("beat", "warm")
        assert await world.contexts.keep_warm([pool]) == []
        assert [world.engine.state(f"warm-{n}") for n in (1, 2)] == [State.PAUSED] * 2
        started = world.host.trace.count("start paused warm-1")
        assert (await world.contexts.clone("warm", 1)).names == ("warm-1",)
        assert world.host.trace.count("start paused warm-1") == started
        await world.engine.pause("warm-1")
        assert (await world.contexts.clone("warm", 2)).names == ("warm-2", "warm-3"), "who has run is nobody's to take"
        assert await world.contexts.keep_warm([pool]) == []
        await world.contexts.keep_warm([pool])
        assert sorted(world.engine.guests) == ["beat", *(f"warm-{n}" for n in range(1, 6))]

    story(act, guest())


def test_a_scheduler_that_comes_back_knows_which_clones_were_staged() -> None:
    host, pool = FakeHost(), WarmPool(template="warm", count=1)

    async def act(world: World) -> None:
        await world.contexts.template("beat", "warm")
        await world.contexts.clone("warm", 2, staged=True)
        await world.engine.resume("warm-1")
        await world.engine.pause("warm-1")

    async def again() -> None:
        world = World(host)
        await world.engine.adopt(decode_guest)
        async with going(world.engine):
            assert await world.contexts.keep_warm([pool]) == []
            assert set(world.engine.guests) == {"beat", "warm-1", "warm-2"}
            assert (await world.contexts.clone("warm", 1)).names == ("warm-2",)

    story(act, guest(), host=host)
    asyncio.run(again())


@pytest.mark.parametrize("mould", [True, False])
def test_what_was_still_being_loaded_when_a_scheduler_ended_is_removed_by_the_next_one(mould: bool) -> None:
    host = FakeHost()
    origin = Origin(state="/states/x/state", machine="pc-i440fx-7.2", ram=RamFile("/states/x/ram", shared=mould))
    placement = Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,), held=(2,))

    async def tell() -> list[str]:
        world = World(host)
        launcher = launcher_on(host, world.engine.topology)
        half = replace(guest("half"), origin=origin, staged=mould)
        await launcher.files.prepare("half", {}, {}, "alice", {})
        await launcher.hypervisor.start_paused(render(half.placed(placement, launcher.files.directory("half"))))
        assert host.named("half") is not None
        return await world.engine.adopt(decode_guest)

    (note,) = asyncio.run(tell())
    assert note.startswith("half: a template was being made" if mould else "half: its state was being loaded")
    assert host.domains == {}


def test_what_disks_can_grow_to_counts_for_who_goes_on_from_a_state_too() -> None:
    async def act(world: World) -> None:
        await world.contexts.save("beat", "five")
        held = await world.contexts.shelf.find(Kind.SAVED, "five")
        assert (await world.contexts.shelf.guest(held)).request().disk == 1 << 30

    story(act, replace(guest(disks=(OVERLAY,)), disk=1 << 30))


def test_clones_are_refused_all_or_none() -> None:
    async def act(world: World) -> None:
        await world.contexts.template("beat", "warm")
        with pytest.raises(RefusedError, match="nothing was started: beat: guest name"):
            await world.contexts.clone("warm", 2, ("new", "beat"))
        assert world.host.named("new") is None

    story(act, guest())


def test_a_template_whose_mould_cannot_be_loaded_is_none() -> None:
    async def act(world: World) -> None:
        with pytest.raises(FailedError, match="told to fail"):
            await world.contexts.template("beat", "warm")
        assert world.host.named("mould-warm") is None

    assert story(act, guest(), host=FakeHost(Faults(cannot_be_restored=["mould-warm"]))).host.disk == {}


def test_owners_see_only_what_is_theirs_and_a_name_of_several_is_refused_to_who_sees_them_all() -> None:
    async def act(world: World) -> None:
        await world.contexts.save("one", "five")
        await world.contexts.save("two", "five")
        assert [held.context.guest for held in await world.contexts.shelf.held(Kind.SAVED, "bob")] == ["two"]
        with pytest.raises(UsageError, match="five: alice, bob each have one of this name"):
            await world.contexts.restore("five")
        with pytest.raises(UsageError, match="five: there is no such saved guest"):
            await world.contexts.restore("five", "carol")
        assert await world.contexts.restore("five", "bob") == "two"

    story(act, guest("one"), replace(guest("two"), owner="bob"))


class CutError(Exception):
    """The process ended here."""


class CutStates(FakeStates):
    """The scheduler's process ends at the step of this number, from when `left` is set."""

    left: int | None = None

    def _step(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise CutError
            self.left -= 1

    async def begin(self, owner: str, kind: str, name: str) -> Any:
        self._step()
        draft = await super().begin(owner, kind, name)
        self._step()
        return draft

    async def copy(self, source: str, target: str) -> None:
        self._step()
        await super().copy(source, target)
        self._step()

    async def publish(self, draft: Any, manifest: str) -> str:
        self._step()
        path = await super().publish(draft, manifest)
        self._step()
        return path

    async def abandon(self, draft: Any) -> None:
        if self.left != 0:  # who has ended abandons nothing
            await super().abandon(draft)


ACTS: dict[str, Callable[[Contexts], Coroutine[Any, Any, object]]] = {
    "save": lambda contexts: contexts.save("beat", "x"),
    "snapshot": lambda contexts: contexts.snapshot("beat", "x"),
    "template": lambda contexts: contexts.template("beat", "x"),
}


@pytest.mark.parametrize("what", ACTS)
@pytest.mark.parametrize("step", range(6))
def test_cut_off_at_any_step_there_is_the_old_or_the_new_state_and_no_stray(what: str, step: int) -> None:
    host = FakeHost()

    async def first() -> bool:
        world = World(host, states := CutStates(host))
        async with going(world.engine):
            await world.engine.start([guest(disks=(OVERLAY,))])
            world.becomes("beat", b"now")
            states.left = step
            # What is not awaited to its end after the cut does not count: the next scheduler sees host alone.
            world.engine.resume = world.engine.kill = _never  # type: ignore[method-assign, assignment]  # it has ended
            try:
                await ACTS[what](world.contexts)
            except (CutError, OrchestratorError):
                return True
            return False

    async def second() -> World:
        world = World(host)
        await world.engine.adopt(decode_guest)
        async with going(world.engine):
            await world.contexts.finish()
        return world

    if not asyncio.run(first()):
        return
    world = asyncio.run(second())
    assert world.unfinished() == set()
    held = asyncio.run(world.contexts.shelf.held(Kind(ACTS_KINDS[what])))
    there = host.named("beat")
    if what == "save":
        assert (there is None) is bool(held), "saved, or there still"
    if there is not None:
        assert there.content == b"now"
        assert host.files["beat"]["vda.overlay.qcow2"] == b"now"
    for each in held:
        assert host.disk[f"{each.directory}/state"].startswith(b"now")
        assert host.disk[f"{each.directory}/vda"] == b"now"
    assert host.named("mould-x") is None


ACTS_KINDS = {"save": "saved", "snapshot": "snapshot", "template": "template"}


async def _never(*_: object) -> None:
    raise CutError


def test_a_guest_that_has_grown_is_not_saved_for_it_could_not_be_restored() -> None:
    async def act(world: World) -> None:
        await world.engine.resize("beat", 2)
        with pytest.raises(RefusedError, match=r"has 2 vCPUs.*the 1 of its definition only; `orchestrator resize beat"):
            await world.contexts.save("beat", "five")
        assert world.engine.state("beat") is State.RUNNING
        await world.engine.resize("beat", 1)
        await world.contexts.save("beat", "five")

    assert len(story(act, guest(mode=Mode.EXCLUSIVE, max_vcpus=2)).kept()) > 0

"""What the scheduler makes of the acts that it finds in the guard's journal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode, OnCrash
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine
from orchestrator.errors import HostError, RefusedError
from orchestrator.foreground import Until, run_in_foreground
from orchestrator.host.guard_book import GuardBook
from orchestrator.host.journal_file import JournalFile
from orchestrator.recorder import Recorder, Unrecorded
from orchestrator.wiring import emergency
from orchestrator.wiring.emergency import Heeding
from orchestrator.wiring.foreground import require_not_barred
from tests.fakes.chores import FakeChores
from tests.fakes.engine import going, guest, launcher_on
from tests.fakes.host import FakeHost
from tests.fakes.journal import FakeJournal
from tests.fakes.store import FakeStore


@dataclass
class Scene:
    """A scheduler on a host in memory, which heeds what is appended to a guard's journal.

    If it is `recorded`, a thread writes down what the scheduler does; the clock in memory does not wait for that.
    """

    path: Path
    recorded: bool = False
    host: FakeHost = field(default_factory=FakeHost)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        topology = discover({"cpu/online": "0-7"})
        launcher = launcher_on(self.host, topology)
        self.journal, self.acts = FakeJournal(), JournalFile(self.path)
        self.recorder = Recorder(
            self.journal, FakeStore(), FakeChores(), lambda: 0, serial_limit=1 << 20, tell=self.told.append
        )
        records = self.recorder if self.recorded else Unrecorded()
        self.engine = Engine(topology, Policy(), launcher, self.host.clock, records=records)
        self.heeding = Heeding(
            GuardBook(self.path), self.engine, launcher, self.recorder, self.host.clock, self.told.append
        )

    def act(self, kind: str, name: str, pid: int | None = None) -> None:
        """Have the guard act on the process of a guest, or say it was another one of this number."""
        live = self.engine.guests[name]
        target: dict[str, Any] = {"name": name, "uuid": str(live.domain.uuid), "began": 1}
        self.acts.append(kind, {"reason": "x", "guests": [{**target, "pid": pid or live.pid}]}, 0)

    async def becomes(self, name: str, state: State) -> None:
        until = time.monotonic() + 60
        while self.engine.state(name) is not state:
            assert time.monotonic() < until, self.told
            await asyncio.sleep(0.001)
            await self.host.clock.sleep(0.1)

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with going(self.engine):
                heeding = asyncio.create_task(self.heeding.run())
                try:
                    await story()
                finally:
                    heeding.cancel()
                    await asyncio.gather(heeding, return_exceptions=True)
            await self.recorder.close()

        with contextlib.closing(self.acts):
            asyncio.run(whole())


def test_a_guest_that_was_killed_is_not_started_anew(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl")

    async def story() -> None:
        await scene.engine.start([guest("web", mode=Mode.EXCLUSIVE, on_crash=OnCrash.RESTART)])
        scene.act("kill", "web")
        scene.host.ends("web")
        await scene.host.clock.sleep(60)
        assert scene.engine.state("web") is State.STOPPED
        assert scene.engine.holders() == {}

    scene.play(story)
    assert scene.told == ["the emergency console: kill web (x)"]
    assert scene.journal.records[-1].kind == "guard"
    assert scene.journal.records[-1].body["hash"] == scene.acts.head.hash


def test_who_comes_to_the_door_in_between_takes_nothing_away_from_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl")
    door = emergency.door(scene.heeding)

    async def story() -> None:
        await scene.engine.start([guest("web", mode=Mode.EXCLUSIVE, on_crash=OnCrash.RESTART)])
        scene.act("kill", "web")
        door.require_no_lockdown()
        door.require_no_ban("eve")
        scene.host.ends("web")
        await scene.host.clock.sleep(60)
        assert scene.engine.state("web") is State.STOPPED

    scene.play(story)


def test_a_run_in_the_foreground_heeds_it_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl")

    async def story() -> None:
        web = guest("web", mode=Mode.EXCLUSIVE, on_crash=OnCrash.RESTART)
        interrupted = asyncio.Event()
        async with emergency.heeded(replace(scene.heeding, records=Unrecorded())):
            running = asyncio.create_task(
                run_in_foreground(
                    scene.engine,
                    [web],
                    until=Until(),
                    clock=scene.host.clock,
                    interrupted=interrupted,
                    on_look=lambda: None,
                )
            )
            await scene.host.clock.sleep(5)
            scene.act("freeze", "web")
            await scene.host.clock.sleep(5)
            assert scene.engine.state("web") is State.PAUSED
            scene.act("kill", "web")
            scene.host.ends("web")
            await running
        assert scene.engine.guests["web"].ended == "QEMU failed; killed at the emergency console: x"

    with contextlib.closing(scene.acts):
        asyncio.run(story())
    assert scene.told == ["the emergency console: freeze web (x)", "the emergency console: kill web (x)"]


def test_one_that_crashed_by_itself_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl")

    async def story() -> None:
        await scene.engine.start([guest("web", mode=Mode.EXCLUSIVE, on_crash=OnCrash.RESTART)])
        scene.act("kill", "web", pid=999_999)  # another process, of an earlier guest of this name
        await scene.host.clock.sleep(1)
        assert scene.engine.state("web") is State.RUNNING
        scene.host.ends("web")
        await scene.host.clock.sleep(60)
        assert scene.engine.state("web") is State.RUNNING

    scene.play(story)


def test_a_frozen_guest_is_paused_and_let_go_on_by_the_scheduler(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl")

    async def story() -> None:
        await scene.engine.start([guest("web")])
        scene.act("freeze", "web")
        await scene.host.clock.sleep(2)
        assert scene.engine.state("web") is State.PAUSED
        assert "thaw web" in scene.host.trace
        scene.act("thaw", "web")
        await scene.host.clock.sleep(2)
        assert scene.engine.state("web") is State.RUNNING

    scene.play(story)


def test_a_full_disk_of_the_schedulers_does_not_undo_what_the_guard_does_and_is_owed_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl", recorded=True)

    async def story() -> None:
        await scene.engine.start([guest("web"), guest("other")])
        scene.journal.full = True
        scene.act("freeze", "web")
        await scene.becomes("web", State.PAUSED)
        scene.act("thaw", "web")
        await scene.becomes("web", State.RUNNING)
        before = scene.journal.head
        with pytest.raises(HostError):
            await scene.engine.pause("other")  # which is refused to everybody else
        await scene.engine.stop(["other"])
        assert scene.journal.head == before
        scene.journal.full = False
        await scene.engine.kill("web")

    scene.play(story)
    late, kill = scene.journal.records[-2:]
    assert (late.kind, kill.kind) == ("late", "kill")
    owed = [(each["kind"], each["guest"]) for each in late.body["acts"]]
    assert owed == [("pause", "web"), ("resume", "web"), ("end", "other")]
    unrecorded = [line for line in scene.told if line.startswith("not recorded: ")]
    assert [line.split(":")[1].strip() for line in unrecorded] == ["pause of web", "resume of web", "end of other"]


def test_who_is_barred_is_launched_by_no_way(tmp_path: Path) -> None:
    book = GuardBook(tmp_path / "guard.jsonl")
    with contextlib.closing(JournalFile(tmp_path / "guard.jsonl")) as journal:
        journal.append("lockdown", {"reason": "fire"}, 0)
        assert "fire" in book.barred("anybody", 0)


def test_a_run_of_who_is_barred_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "guard.jsonl")
    scene.acts.append("ban", {"reason": "coins", "user": guest("web").owner, "until": None}, 0)
    scene.acts.close()
    launcher = replace(scene.heeding.launcher, barred=emergency.barred_by(scene.heeding.book))
    with pytest.raises(RefusedError, match=r"web: not started: .* is banned by the emergency console: coins"):
        require_not_barred([guest("web")], launcher)

"""What the daemon does at signals: reads its policy anew, and says what becomes of the guests."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from orchestrator.core.durations import Duration
from orchestrator.core.model import Mode
from orchestrator.core.policy import Policy, RotationPolicy
from orchestrator.engine import Engine
from orchestrator.host.notify import Notifier
from orchestrator.host.opening import UserFiles
from orchestrator.planner import Planner
from orchestrator.service.desk import Desk
from orchestrator.service.events import Events
from orchestrator.wiring.sent import SentDefinitions
from orchestrator.wiring.service import Daemon, Outside, Settings, farewell
from orchestrator.wiring.site import load_policy
from tests.fakes.calendar import FakeCalendar
from tests.fakes.engine import engine_on, going, guest, launcher_on
from tests.fakes.host import FakeHost

POLICY = '[rotation]\nslice = "{slice}"\n'


def daemon_with(path: Path | None) -> tuple[Daemon, list[str]]:
    host, told = FakeHost(), list[str]()
    settings = Settings(path, load_policy(path), None, None)
    made = engine_on(host)
    made = Engine(made.topology, settings.policy, launcher_on(host, made.topology), host.clock)
    definitions = SentDefinitions(settings.policy, UserFiles())
    desk = Desk(made, definitions, Events(), host.clock)
    planner = Planner(made, FakeCalendar(host.clock), settings.policy, told.append, definitions.go_by)
    with socket.socket(socket.AF_UNIX) as nowhere:
        return Daemon(made, desk, definitions, planner, settings, Outside(nowhere, Notifier({}), told.append)), told


def after(path: Path, text: str) -> tuple[Daemon, list[str]]:
    """Start with turns of 100 ms, write this, and reload."""
    path.write_text(POLICY.format(slice="100 ms"))
    daemon, told = daemon_with(path)
    path.write_text(text)
    daemon.reload()
    return daemon, told


def test_a_valid_policy_comes_into_force(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    daemon, told = after(path, POLICY.format(slice="1 s"))
    assert told == [f"reload: {path}: in force"]
    assert daemon.engine.policy == daemon.settings.policy == daemon.definitions.policy == load_policy(path)
    daemon.reload()
    assert told[1:] == [f"reload: {path}: nothing has changed"]


def test_an_invalid_policy_is_refused_with_every_fault_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    daemon, told = after(path, 'colour = "red"\n[rotation]\nslice = "0 s"\n')
    assert [line.partition(": ")[0] for line in told] == [f"{path}:1", f"{path}:3", "reload"]
    assert told[-1] == f"reload: {path}: refused; the policy is as before"
    assert daemon.engine.policy.rotation.slice == Duration.parse("100 ms")
    path.unlink()
    daemon.reload()
    assert told[-1] == f"reload: {path}: refused; the policy is as before"


def test_values_that_hold_to_the_end_stay_and_are_named_and_the_others_come_into_force(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    fixed = '[cores]\nreserved = "5"\nsplit_cores = true\n[hypervisor]\nconnect = "qemu:///system"\n'
    daemon, told = after(path, f"{POLICY.format(slice='1 s')}{fixed}")
    assert [line.partition(": ")[0] for line in told] == [
        "cores.reserved",
        "cores.split_cores",
        "hypervisor.connect",
        "reload",
    ]
    assert told[0].startswith("cores.reserved: stays '' and is not '5' yet, since guests may be on them; end this")
    assert told[-1] == f"reload: {path}: in force, but for 3 that stay"
    assert daemon.engine.policy == Policy(rotation=RotationPolicy(slice=Duration.parse("1 s")))
    daemon.reload()
    assert told[4:] == told[:4]


def test_without_a_policy_file_there_is_nothing_to_read_anew() -> None:
    daemon, told = daemon_with(None)
    daemon.reload()
    assert told == ["reload: no --policy was given, so there is nothing to read anew"]


def test_the_farewell_names_who_goes_on_and_who_stands_still_without_a_scheduler() -> None:
    host = FakeHost()

    async def story() -> list[str]:
        engine = engine_on(host, cpus="0-3")
        said = [farewell(engine)]
        async with going(engine):
            await engine.start([guest("web", mode=Mode.EXCLUSIVE), guest("a"), guest("b"), guest("c")])
            await engine.stop(["c"])
            said.append(farewell(engine))
            await engine.stop(["a", "b"])
            said.append(farewell(engine))
        return said

    nobody, some, one = asyncio.run(story())
    assert nobody == "ended; no guest runs"
    running, waiting, promise = some.removeprefix("ended; ").split("; ")
    assert running.startswith("2 guests left running: ")
    assert waiting.startswith("1 guest left waiting: ")
    assert promise == "who waits gets turns again from the next `orchestrator serve`"
    named = running.partition(": ")[2].split(", ")
    assert {"web", "a", "b"} == {*named, waiting.partition(": ")[2]}
    assert "web" in named
    assert one == "ended; 1 guest left running: web"

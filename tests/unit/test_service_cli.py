"""The commands that reach the daemon: the real command line, through a real socket, to a host in memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.unit.service_daemon import Daemon, daemon_in_a_thread, definition


@dataclass
class Terminal:
    """The command line in this thread, and a daemon in another one."""

    daemon: Daemon
    directory: Path
    loop: asyncio.AbstractEventLoop

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        command = [*arguments, "--socket", str(self.daemon.path)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(command)
        assert "defect" not in err.getvalue()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out.getvalue(), err.getvalue()

    def says(self, *arguments: str) -> list[str]:
        code, out, err = self(*arguments)
        assert code == 0, err
        return out.splitlines()

    def json(self, *arguments: str) -> Any:
        return json.loads("\n".join(self.says(*arguments, "--json")))

    def write(self, *names: str) -> list[str]:
        paths = [self.directory / f"{name}.toml" for name in names]
        for path in paths:
            path.write_text(definition(path.stem))
        return [str(path) for path in paths]

    def have(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something where the daemon is."""
        asyncio.run_coroutine_threadsafe(act(), self.loop).result(timeout=60)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with daemon_in_a_thread(tmp_path) as (daemon, loop):
        yield Terminal(daemon, tmp_path, loop)


def test_a_guest_lives_through_all_its_commands(terminal: Terminal) -> None:
    assert terminal.says("start", *terminal.write("web", "db")) == ["web: running on core 2", "db: running on core 3"]
    _, *rows = terminal.says("ps")
    assert [row.split()[:6] for row in rows] == [
        [name, "root", "x86_64", "exclusive", "tcg", "running"] for name in ("db", "web")
    ]
    assert terminal.says("pause", "web", "db") == ["web: paused", "db: paused"]
    assert terminal.json("explain", "web")["state"] == "paused"
    assert terminal.says("resume", "web") == ["web: resumed"]
    told = terminal.says("explain", "web")
    assert told[0].startswith("web: running, on core 2, for ")
    assert told[1:] == ["  it is exclusive: cores 2 are its own from start to stop"]
    assert terminal.says("restart", "web") == ["web: restarted"]
    assert terminal.says("kill", "web") == ["web: killed"]
    shown = dict(line.split(maxsplit=1) for line in terminal.says("show", "web"))
    assert (shown["ended"], shown["specification.boot.payload"]) == ("killed", f"{terminal.directory}/guest.elf")
    assert terminal.says("rm", "web") == ["web: removed"]
    assert terminal.json("stop", "--all") == {"stopped": ["db"]}
    assert [guest["state"] for guest in terminal.json("ps")["guests"]] == ["stopped"]


def test_a_dry_run_says_where_guests_would_run_and_starts_none(terminal: Terminal) -> None:
    exclusive, shared = terminal.write("web", "beat")
    Path(shared).write_text(definition("beat", mode="shared"))
    assert terminal.says("start", shared, exclusive, "--dry-run") == [
        "web: would run on core 2",
        "beat: would take turns, launched on core 3",
    ]
    assert (terminal.json("ps")["guests"], terminal.daemon.host.trace) == ([], [])
    assert {core["held"] for core in terminal.json("cores")["cores"]} == {False}
    assert terminal.says("start", exclusive, shared) == ["web: running on core 2", "beat: running on core 3"]


def test_a_dry_run_that_would_be_refused_names_every_rule_that_refuses(terminal: Terminal) -> None:
    wide, small = terminal.write("web", "db")
    terminal.says("start", wide)
    Path(wide).write_text(definition(vcpus=9))
    code, out, _ = terminal("start", wide, small, "--dry-run")
    assert code == 3
    told = out.splitlines()
    assert told[0].startswith("web: would be refused: guest name: wanted web, not in use, available root has a guest")
    assert "wanted 9" in told[0].partition("; ")[2]
    assert told[1:] == ["db: would run on core 3", "nothing would be started"]
    code, out, _ = terminal("start", wide, "--dry-run", "--json")
    (guest,) = json.loads(out)["guests"]
    assert (code, guest["refused_by"][0]["rule"], guest["cores"]) == (3, "guest name", [])
    assert terminal("start", wide)[0] == 3


def test_cores_are_shown_as_without_a_daemon(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web"))
    rows = {core["id"]: core for core in terminal.json("cores")["cores"]}
    assert rows[2] == {"id": 2, "role": "pool", "node": 0, "holder": "web", "held": True}
    assert terminal.says("cores")[3].split() == ["2", "pool", "0", "web"]


def test_events_are_lines_and_with_json_objects(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web"))
    told = [json.loads(line) for line in terminal.says("events", "--json")]
    assert {"seq", "at", "what", "guest", "owner", "cores", "why", "waited", "by"} == set(told[0])
    began = next(event for event in told if event["what"] == "turn began")
    (line,) = terminal.says("events", "--since", str(began["seq"] - 1))[:1]
    assert line == f"{began['seq']}  {began['at']}  web  turn began  core 2"

    async def end() -> None:
        terminal.daemon.desk.events.close()

    terminal.have(end)
    assert len(terminal.says("events", "--follow")) == len(told)


def test_root_acts_for_a_user(terminal: Terminal) -> None:
    assert terminal.says("start", *terminal.write("web"), "--user", "4000001") == ["web: running on core 2"]
    terminal.says("start", *terminal.write("db"))
    assert [guest["owner"] for guest in terminal.json("ps", "--user", "4000001")["guests"]] == ["4000001"]
    assert terminal.json("stop", "--all", "--user", "4000001") == {"stopped": ["web"]}
    assert {guest["name"]: guest["state"] for guest in terminal.json("ps")["guests"]} == {
        "db": "running",
        "web": "stopped",
    }


WRONG: list[tuple[list[str], int, str]] = [
    (["pause", "ghost"], 2, "ghost: there is no such guest; `orchestrator ps` lists those that are"),
    (["stop", "ghost"], 2, "ghost: there is no such guest; `orchestrator ps` lists those that are"),
    (["explain", "ghost"], 2, "ghost: there is no such guest; `orchestrator ps` lists those that are"),
    (["start", "nowhere.toml"], 2, "nowhere.toml: cannot be read: No such file or directory"),
    (["rm", "web"], 3, "web: is running; `orchestrator stop web` first"),
]


def test_exit_codes_follow_the_daemons_errors(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web"))
    for command, code, line in WRONG:
        assert terminal(*command) == (code, "", f"{line}\n")


def test_a_definition_is_judged_by_the_daemon_and_its_faults_have_the_users_file_name(terminal: Terminal) -> None:
    (path,) = terminal.write("web")
    Path(path).write_text(definition(vcpus=0) + "colour = 1\n")
    code, _, err = terminal("start", path)
    assert code == 2
    assert [line.partition(": ")[0] for line in err.splitlines()] == [f"{path}:3", f"{path}:8"]
    Path(path).write_bytes(b'name = "\xff"')
    code, _, err = terminal("start", path)
    assert (code, err.startswith(f"{path}:1: byte 0xff is not UTF-8")) == (2, True)


def test_an_exclusive_guest_is_moved_and_refused_with_the_reason(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web"))
    assert terminal.says("move", "web", "--cores", "4") == ["web: running with 1 vCPU on core 4"]
    assert terminal.says("move", "web") == ["web: running with 1 vCPU on core 4"]
    assert terminal.json("move", "web", "--cores", "5")["vcpus"] == [5]
    code, _, said = terminal("move", "web", "--cores", "0")
    assert (code, "core 0" in said) == (3, True)
    assert terminal("move", "web", "--cores", "x-y")[0] == 2
    code, _, said = terminal("resize", "web", "--vcpus", "2")
    assert (code, said) == (3, "web: vCPUs: wanted 2, available 1; its definition has no max_vcpus\n")
    assert terminal("move", "ghost")[0] == 2


def policy_of(terminal: Terminal, *guests: str) -> str:
    """Write a policy that wants these guests."""
    (terminal.directory / "guest.elf").touch()
    path = terminal.directory / "p.toml"
    path.write_text("".join(f'[[guest]]\ndefinition = "{guest}.toml"\nowner = "ann"\n' for guest in guests))
    terminal.write(*guests)
    return str(path)


def test_a_policy_is_planned_run_and_then_nothing_is_left_to_do(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(terminal.directory / "r"))
    path = policy_of(terminal, "web", "db")
    assert terminal("policy", "plan", path) == (
        10,
        "start db of ann: it is not there\nstart web of ann: it is not there\n",
        "",
    )
    assert terminal.daemon.host.trace == []
    assert terminal.says("policy", "run", path) == [f"policy run {path}: 2 started; 2 guests wanted"]
    assert terminal.says("policy", "run", path) == [f"policy run {path}: nothing to do; 2 guests wanted"]
    assert terminal.says("policy", "plan", path) == [f"{path}: nothing to do; 2 guests as wanted"]
    assert terminal.json("policy", "plan", path)["changes"] == []
    Path(policy_of(terminal, "web")).write_text(Path(path).read_text() + "[cores]\nshared_floor = 1\n")
    code, out, _ = terminal("policy", "plan", path)
    assert (code, out.splitlines()[0]) == (10, "set cores.shared_floor: 0 -> 1")
    told = terminal.json("policy", "run", path)
    assert [(each["what"], each["guest"]) for each in told["changes"]] == [("stop", "db")]
    assert [guest["name"] for guest in terminal.json("ps")["guests"] if guest["state"] == "running"] == ["web"]


def test_a_policy_run_says_what_could_not_be_had_and_ends_with_its_code(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(terminal.directory / "r"))
    path = policy_of(terminal, "web", "db")
    (terminal.directory / "db.toml").write_text(definition("db", vcpus=9))
    code, out, err = terminal("policy", "run", path)
    assert (code, out) == (3, f"policy run {path}: 1 started, 1 failed; 2 guests wanted\n")
    assert err.startswith("nothing was started: db: ")


def test_lost_serial_output_stands_beside_the_table_and_in_show(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web", "quiet"))

    async def lose() -> None:
        terminal.daemon.engine.guests["web"].serial_lost = 4096

    terminal.have(lose)
    code, out, err = terminal("ps")
    assert (code, len(out.splitlines())) == (0, 3)
    assert err == "web: 4096 bytes of its serial output could not be kept\n"
    assert [terminal.json("show", name)["serial_lost"] for name in ("web", "quiet")] == [4096, 0]

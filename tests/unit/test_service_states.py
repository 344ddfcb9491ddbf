"""States over the daemon's socket: the real command line against a host in memory, and who may touch what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import RefusedError, UsageError
from tests.unit.service_daemon import ALICE, BOB, ROOT, Daemon, daemon_on, definition
from tests.unit.test_service_cli import Terminal, terminal

__all__ = ["terminal"]  # a fixture


def test_a_guest_is_saved_listed_and_restored(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web"))
    assert terminal.says("save", "web", "--as", "noon") == [
        "web: saved as noon; `orchestrator restore noon` has it go on"
    ]
    (state,) = terminal.json("saved", "ls")["states"]
    assert (state["name"], state["guest"], state["misfits"]) == ("noon", "web", [])
    table = terminal.says("saved", "ls")
    assert table[0].split() == ["NAME", "GUEST", "OWNER", "ARCHITECTURE", "TAKEN", "MIB", "FITS"]
    assert table[1].split()[-1] == "yes"
    assert terminal.says("restore", "noon") == ["web: restored from noon"]
    assert terminal.says("saved", "rm", "noon") == ["noon: removed"]
    assert terminal.json("saved", "ls") == {"states": []}
    assert terminal.says("gc") == ["nothing was left unfinished"]


def test_snapshots_are_a_guests_own(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web", "mail"))
    terminal.says("snapshot", "create", "web", "--as", "one")
    named = terminal.json("snapshot", "create", "mail")["name"]
    assert [state["name"] for state in terminal.json("snapshot", "ls", "web")["states"]] == ["one"]
    assert [state["name"] for state in terminal.json("snapshot", "ls", "mail")["states"]] == [named]
    assert terminal.says("snapshot", "revert", "web", "one") == ["web: reverted to one"]
    assert terminal.says("snapshot", "rm", "web", "one") == ["one: removed"]
    code, _, err = terminal("snapshot", "revert", "web", "one")
    assert (code, err.splitlines()) == (
        2,
        ["web@one: there is no such snapshot; `orchestrator snapshot ls GUEST` lists those that are"],
    )


def test_clones_are_started_from_a_template_and_what_is_to_be_known_is_told(terminal: Terminal) -> None:
    terminal.says("start", *terminal.write("web"))
    terminal.says("template", "create", "web", "--as", "warm")
    code, out, err = terminal("clone", "warm", "--count", "2")
    assert (code, out.splitlines()) == (0, ["warm-1: started from warm", "warm-2: started from warm"])
    assert err.startswith("note: clones go on with the template's random numbers")
    assert terminal.json("clone", "warm", "--name", "other", "--staged")["guests"] == ["other"]
    assert {row["name"]: row["state"] for row in terminal.json("ps")["guests"]}["other"] == "paused"
    assert terminal("clone", "warm", "--name", "a", "--count", "3")[0] == 2
    assert terminal("clone", "warm", "--name", "../x")[0] == 2
    assert terminal("clone", "cold")[0] == 2
    assert [state["name"] for state in terminal.json("template", "ls")["states"]] == ["warm"]
    assert terminal.says("template", "rm", "warm") == ["warm: removed"]


def test_others_see_and_touch_nothing_and_root_everything(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition("web"))
            daemon.caller = BOB
            with pytest.raises(RefusedError, match="another user's"):
                await ask(daemon, "POST", "guests/web/save")
            daemon.caller = ALICE
            await ask(daemon, "POST", "guests/web/save", name="noon")
            daemon.caller = BOB
            assert await ask(daemon, "GET", "states/saved") == {"states": []}
            for act in ("states/saved/noon/restore", "guests/web/snapshots/noon/revert"):
                with pytest.raises(UsageError, match="there is no such"):
                    await ask(daemon, "POST", act)
            with pytest.raises(UsageError, match="there is no such"):
                await ask(daemon, "DELETE", "states/saved/noon")
            with pytest.raises(RefusedError, match="only root"):
                await ask(daemon, "POST", "gc")
            daemon.caller = ROOT
            assert len((await ask(daemon, "GET", "states/saved"))["states"]) == 1
            await ask(daemon, "POST", "states/saved/noon/restore")
            assert (await daemon.client.guest("web"))["owner"] == ALICE.user

    asyncio.run(story())


@pytest.mark.parametrize("path", ["states/nothing", "guests/ghost/save", "states/template/ghost/clone"])
def test_what_is_not_there_is_said_so(tmp_path: Path, path: str) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            with pytest.raises(UsageError):
                await ask(daemon, "GET" if path.endswith("nothing") else "POST", path)

    asyncio.run(story())


async def ask(daemon: Daemon, method: str, path: str, **wanted: Any) -> Any:
    return await daemon.client.ask_state(method, path, **wanted)

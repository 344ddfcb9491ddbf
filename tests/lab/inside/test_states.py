"""Warm templates, a warm pool, clones; everything killed, and guests that go on: under a daemon, all architectures."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.looking import ROOT, ask, command, emulators, eventually, guests, heartbeats, says
from tests.lab.inside.servers import Servers

ARCHITECTURES = ("aarch64", "armv7l", "i386", "x86_64")
BEATS = [f"heartbeat-{each}" for each in ARCHITECTURES]
POOL = "warm-aarch64"
STATES = Path("/var/lib/orchestrator/states")

POLICY = """
extends = "{root}/policies/lab.toml"
[[warm]]
template = "{pool}"
count = 2
"""


@pytest.fixture
def servers(tmp_path: Path) -> Any:
    policy = tmp_path / "warm.toml"
    policy.write_text(POLICY.format(root=ROOT, pool=POOL))
    made = Servers(tmp_path, policy=str(policy))
    yield made
    made.clear()


def test_clones_go_on_from_templates_and_saved_guests_after_everything_was_killed(servers: Servers) -> None:
    servers.start()
    assert command("start", *(f"domains/{name}.toml" for name in BEATS)).code == 0
    eventually(lambda: all(heartbeats(name) >= 3 for name in BEATS), "all four beat")
    assert command("pause", *BEATS).code == 0
    for architecture in ARCHITECTURES:
        check_clones(architecture)
    check_the_warm_pool()
    assert command("resume", *BEATS).code == 0
    check_all_go_on_after_everything_was_killed(servers)
    assert ask("gc") == {"removed": []}
    assert list(STATES.glob(".unfinished/*")) == []


def check_clones(architecture: str) -> None:
    """Two clones beat on from where the template was, each with a name, a uuid and a machine id of its own."""
    name, template = f"heartbeat-{architecture}", f"warm-{architecture}"
    last = beats(name)[-1]
    assert command("template", "create", name, "--as", template).code == 0
    assert beats(name)[-1] == last, "it was paused, and is"
    names = [f"one-{architecture}", f"two-{architecture}"]
    told = command("clone", template, "--name", names[0], "--name", names[1])
    assert told.code == 0, told.err
    assert "random numbers" in told.err, "nobody can tell a bare-metal guest, and that is said"
    eventually(lambda: all(beats(each) for each in names), f"clones of {template} beat")
    assert {beats(each)[0] for each in names} <= {last, last + 1, last + 2}, "of a line that was begun the rest is lost"
    found = guests()
    assert len({found[each]["uuid"] for each in (name, *names)}) == 3
    audited = command("audit", "pins", "--json")
    assert audited.code == 0, audited.out
    assert command("kill", *names).code == 0


def check_the_warm_pool() -> None:
    """The policy has two staged as soon as there is a template; a clone that is asked for is one of them, at once."""

    def staged() -> list[str]:
        return [each for each, guest in guests().items() if each.startswith(f"{POOL}-") and guest["state"] == "paused"]

    eventually(lambda: len(staged()) == 2, "the pool is filled")
    before = {each: guests()[each]["pid"] for each in staged()}
    assert all(not heartbeats(each) for each in before)
    told = ask("clone", POOL)
    (name,) = told["guests"]
    assert name in before
    assert guests()[name]["pid"] == before[name], "it was there already"
    eventually(lambda: len(beats(name)) >= 1, "it beats")
    assert beats(name)[0] > 1, "from where the template was"
    eventually(lambda: len(staged()) == 2, "the pool is filled again")
    assert command("kill", name).code == 0


def check_all_go_on_after_everything_was_killed(servers: Servers) -> None:
    """Save, kill the daemon and every QEMU, come back, restore: each beats on where it was, on cores of the pool."""
    last = {}
    for name in BEATS:
        saved = command("save", name, "--as", f"saved-{name}")
        assert saved.code == 0, saved.err
        last[name] = beats(name)[-1]
    servers.running().kill()
    for pid in emulators():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not emulators(), "nothing runs any more")
    servers.start()
    assert {state["name"]: state["misfits"] for state in ask("saved", "ls")["states"]} == {
        f"saved-{name}": [] for name in BEATS
    }
    for name in BEATS:
        restored = command("restore", f"saved-{name}")
        assert restored.code == 0, restored.err
    eventually(lambda: all(len(beats(name)) >= 2 for name in BEATS), "all four beat again")
    first = {name: beats(name)[0] for name in BEATS}
    assert all(last[name] <= first[name] <= last[name] + 2 for name in BEATS), (last, first)
    says("saved, killed and restored: " + ", ".join(f"{name} {last[name]} -> {first[name]}" for name in BEATS))
    audited = command("audit", "pins", "--json")
    assert audited.code == 0, audited.out


def beats(name: str) -> list[int]:
    log = Path(f"/run/orchestrator/guests/{name}/serial.log").read_bytes()
    return [int(line.split()[1]) for line in log.split(b"\n")[:-1] if line.startswith(b"heartbeat ")]

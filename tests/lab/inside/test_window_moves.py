"""A window that opens under a daemon, on a host with two NUMA nodes: who has a better place by then is moved there."""

from __future__ import annotations

import signal
from datetime import datetime, timedelta
from pathlib import Path

from tests.lab.inside.looking import ROOT, allowed_cores, ask, command, eventually, guests, heartbeats
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import Servers, events

GUEST = """
name = "{name}"
architecture = "aarch64"
vcpus = {vcpus}
memory = "32 MiB"
mode = "exclusive"
[boot]
payload = "{root}/domains/build/heartbeat-aarch64.elf"
"""
WINDOW = """
[[window]]
name = "night"
at = "{opens:%Y-%m-%d %H:%M}"
duration = "1 h"
change = "move"
[window.set.rotation]
slice = "3 s"
"""


def write(directory: Path, name: str, vcpus: int = 1) -> str:
    path = directory / f"{name}.toml"
    path.write_text(GUEST.format(name=name, vcpus=vcpus, root=ROOT))
    return str(path)


def test_a_guest_is_moved_into_one_node_when_a_window_opens_and_is_told_why(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'extends = "{ROOT}/policies/lab.toml"\n')
    servers = Servers(tmp_path, "--policy", str(policy))
    try:
        serve = servers.start()
        node_of = {cpu["id"]: cpu["node"] for cpu in ask("host", "topology")["cpus"]}
        assert command("start", *(write(tmp_path, name) for name in "xyz")).code == 0
        assert command("kill", "x").code == 0
        assert command("start", write(tmp_path, "wide", 2)).code == 0
        assert command("kill", "y").code == 0
        before = guests()
        assert {node_of[core] for core in before["wide"]["cores"]} == {0, 1}, "it had to be content with what there was"
        opens = datetime.now() + timedelta(seconds=70)
        policy.write_text(policy.read_text() + WINDOW.format(opens=opens))
        serve.process.send_signal(signal.SIGHUP)
        serve.tells("reload: ")
        with Observer() as observer:
            serve.tells("policy: window 'night' has begun")
            eventually(lambda: len({node_of[core] for core in guests()["wide"]["cores"]}) == 1, "it is moved")
            beats = heartbeats("wide")
            eventually(lambda: heartbeats("wide") > beats, "it goes on")
        assert observer.violations == []
        now = guests()
        assert now["wide"]["pid"] == before["wide"]["pid"]
        assert now["z"]["cores"] == before["z"]["cores"]
        cores = set(now["wide"]["cores"])
        tasks = Path(f"/proc/{now['wide']['pid']}/task").iterdir()
        assert set().union(*map(allowed_cores, tasks)) == cores
        told = [event for event in events() if event["what"] == "moves"]
        assert [(event["guest"], event["why"]) for event in told] == [
            ("wide", "window 'night' has begun: to a better place")
        ]
        assert set(ask("explain", "wide")["cores"]) == cores
    finally:
        servers.clear()

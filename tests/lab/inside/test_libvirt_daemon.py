"""Guests of the system's libvirt daemon take turns on fewer cores than they are; it is killed and comes back meanwhile.

Their threads are in cgroups of libvirt's, which say where they may run; they move from core to core nevertheless.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.lab.inside.looking import ask, command, emulators, eventually, guests, heartbeats, says
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import Servers, events

DEFINITION = "domains/heartbeat-aarch64.toml"
NAMES = tuple(f"heartbeat-aarch64-{number}" for number in range(1, 6))
LISTENS = Path("/run/libvirt/libvirt-sock")
PID_FILE = Path("/run/libvirtd.pid")


def start_libvirtd() -> None:
    subprocess.run(["libvirtd", "--daemon", "--pid-file", str(PID_FILE)], check=True)
    eventually(LISTENS.exists, "libvirtd listens")


def kill_libvirtd() -> None:
    os.kill(int(PID_FILE.read_text()), signal.SIGKILL)
    LISTENS.unlink()


def warm() -> None:
    """Give the daemon what the embedded driver has found out about QEMU already: to ask again takes minutes."""
    found = Path(os.environ["XDG_CACHE_HOME"]) / "orchestrator" / "libvirt"
    shutil.copytree(found, "/var/cache/libvirt", dirs_exist_ok=True)


def go_on(names: tuple[str, ...], what: str) -> None:
    beats = {name: heartbeats(name) for name in names}
    eventually(lambda: all(heartbeats(name) > beats[name] for name in names), what)


def test_guests_go_on_while_libvirtd_is_away_and_are_managed_again_when_it_is_back(tmp_path: Path) -> None:
    warm()
    subprocess.run(["virtlogd", "--daemon"], check=True)
    start_libvirtd()
    servers = Servers(tmp_path, "--connect", "qemu:///system")
    try:
        serve = servers.start()
        started = command("start", DEFINITION, "--count", str(len(NAMES)))
        assert started.code == 0, started.err
        before = {name: guest["pid"] for name, guest in guests().items()}
        assert {Path(f"/proc/{pid}").owner() for pid in before.values()} == {"libvirt-qemu"}
        with Observer() as observer:
            go_on(NAMES, "all have turns")
            kill_libvirtd()
            serve.tells("libvirt has gone away from qemu:///system")
            go_on(NAMES, "all go on without it")
            start_libvirtd()
            serve.tells("libvirt is back at qemu:///system")
            go_on(NAMES, "all go on with it")
            assert {name: guest["pid"] for name, guest in guests().items()} == before
            assert command("pause", NAMES[0]).code == 0  # which libvirt writes down
            assert ask("explain", NAMES[0])["state"] == "paused"
            turns = [event for event in events() if event["what"] == "turn began"]
            cores = {name: {event["cores"][0] for event in turns if event["guest"] == name} for name in NAMES}
        says(f"{len(turns)} turns under libvirt's daemon, on cores {sorted(map(sorted, cores.values()))}")
        assert any(len(each) > 1 for each in cores.values()), "somebody has moved"
        assert observer.violations == []
        assert ask("stop", "--all") == {"stopped": sorted(NAMES)}
        assert emulators() == []
        assert serve.end() == "ended; no guest runs"
    finally:
        servers.clear()

"""Guests of the system's libvirt daemon, which is killed and comes back: they run as its own user, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.lab.inside.looking import ask, command, emulators, eventually, guests, heartbeats
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import Servers

NAMES = ("heartbeat-aarch64", "heartbeat-armv7l")
LISTENS = Path("/run/libvirt/libvirt-sock")
PID_FILE = Path("/run/libvirtd.pid")


def start_libvirtd() -> None:
    subprocess.run(["libvirtd", "--daemon", "--pid-file", str(PID_FILE)], check=True)
    eventually(LISTENS.exists, "libvirtd listens")


def kill_libvirtd() -> None:
    os.kill(int(PID_FILE.read_text()), signal.SIGKILL)
    LISTENS.unlink()


def test_guests_go_on_while_libvirtd_is_away_and_are_managed_again_when_it_is_back(tmp_path: Path) -> None:
    if not LISTENS.exists():
        subprocess.run(["virtlogd", "--daemon"], check=True)
        start_libvirtd()
    servers = Servers(tmp_path, "--connect", "qemu:///system")
    try:
        serve = servers.start()
        assert command("start", *(f"domains/{name}.toml" for name in NAMES)).code == 0
        eventually(lambda: all(heartbeats(name) > 0 for name in NAMES), "both beat", serve.process)
        before = {name: guest["pid"] for name, guest in guests().items()}
        assert {Path(f"/proc/{pid}").owner() for pid in before.values()} == {"libvirt-qemu"}
        with Observer() as observer:
            kill_libvirtd()
            serve.tells("libvirt has gone away from qemu:///system")
            beats = {name: heartbeats(name) for name in NAMES}
            eventually(lambda: all(heartbeats(name) > beats[name] for name in NAMES), "both go on without it")
            start_libvirtd()
            serve.tells("libvirt is back at qemu:///system")
            assert {name: guest["pid"] for name, guest in guests().items()} == before
            assert command("pause", NAMES[0]).code == 0  # which libvirt writes down
            assert ask("explain", NAMES[0])["state"] == "paused"
            assert command("resume", NAMES[0]).code == 0
        assert observer.violations == []
        assert ask("stop", "--all") == {"stopped": sorted(NAMES)}
        assert emulators() == []
        assert serve.end() == "ended; no guest runs"
    finally:
        servers.clear()

"""What goes wrong around a daemon: each costs a clear line, guests go on, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.inside.looking import ask, command, eventually, guests, heartbeats
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import Serve, Servers

BEAT, OTHER = "heartbeat-i386", "heartbeat-aarch64"
HOUR = 3600.0


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder on a small disk of its own."""
    folder = tmp_path / "state"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k,mode=700", "state", str(folder)], check=True)
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def servers(tmp_path: Path, state: Path) -> Iterator[Servers]:  # noqa: ARG001 (it is to be there longer)
    made = Servers(tmp_path)
    yield made
    made.clear()


def goes_on(pid: int) -> None:
    """The guest is there still, and beats."""
    before = heartbeats(BEAT)
    eventually(lambda: heartbeats(BEAT) > before, "the guest beats on")
    assert Path(f"/proc/{pid}").exists()


def test_whatever_goes_wrong_is_said_and_the_guest_goes_on(servers: Servers, state: Path) -> None:
    serve = servers.start()
    assert command("start", f"domains/{BEAT}.toml").code == 0
    pid = guests()[BEAT]["pid"]
    with Observer() as observer:
        goes_on(pid)
        check_a_full_disk(serve, state)
        goes_on(pid)
        check_a_missing_emulator()
        goes_on(pid)
        check_a_clock_that_is_set(pid)
        serve = check_a_store_that_is_garbage(serve, servers, state)
        assert guests()[BEAT]["pid"] == pid
        check_a_folder_that_cannot_be_written_to(serve, servers, state)
        assert guests()[BEAT]["pid"] == pid
        goes_on(pid)
        assert ask("show", BEAT)["drift_seconds"] == 0
        assert ask("stop", BEAT) == {"stopped": [BEAT]}
    assert observer.violations == []


def check_a_full_disk(serve: Serve, state: Path) -> None:
    """No start without a journal, and one line says so; ends are not held up; it heals by itself."""
    filler = state / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    refused = command("start", f"domains/{OTHER}.toml", "--count", "4")  # one may fit into what a page has left
    assert refused.code == 4, refused
    assert len(refused.err.splitlines()) <= 2  # one of them says which accelerator was chosen
    assert "No space left" in refused.err or "full" in refused.err
    serve.tells("the chores cannot write: ")
    begun = sorted(set(guests()) - {BEAT})
    assert not begun or command("stop", *begun).code == 0
    filler.unlink()
    started = command("start", f"domains/{OTHER}.toml")
    assert started.code == 0, started.err
    assert command("stop", OTHER).code == 0


def check_a_missing_emulator() -> None:
    program = Path(shutil.which("qemu-system-arm") or "")
    away = program.with_name("qemu-system-arm.away")
    program.rename(away)
    try:
        refused = command("start", "domains/heartbeat-armv7l.toml")
    finally:
        away.rename(program)
    assert refused.code in (1, 4)
    assert "qemu-system-arm" in refused.err
    assert "Traceback" not in refused.err


def check_a_clock_that_is_set(pid: int) -> None:
    """The wall clock goes an hour forth and back: turns, waits and limits are of another clock."""
    for step in (HOUR, -HOUR):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
        goes_on(pid)
        assert guests()[BEAT]["state"] in ("running", "waiting")
    said = command("events", "--json").out
    assert "quarantined" not in said
    assert '"gone"' not in said


def check_a_store_that_is_garbage(serve: Serve, servers: Servers, state: Path) -> Serve:
    serve.process.send_signal(signal.SIGKILL)
    serve.process.wait()
    store = state / "store.sqlite"
    store.write_bytes(os.urandom(8192))
    again = servers.start()
    again.tells("store.sqlite")
    return again


def check_a_folder_that_cannot_be_written_to(serve: Serve, servers: Servers, state: Path) -> None:
    serve.end()
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
    code, lines = servers.fails()
    assert code == 4, lines
    assert any(str(state) in line for line in lines)
    assert not any("Traceback" in line for line in lines)
    subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
    servers.start()

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

from tests.lab.inside.looking import ROOT, ask, command, eventually, guests, heartbeats
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import POLICY, Serve, Servers

BEAT = "heartbeat-i386"
HOUR = 3600.0

WORDY = f"""
name = "wordy"
architecture = "aarch64"
vcpus = 1
memory = "64 MiB"
mode = "exclusive"
[boot]
kernel = "{ROOT}/domains/build/heartbeat-aarch64.elf"
cmdline = "{"x" * 2000}"
"""
"""The intents of two do not fit into what a page of the journal may have left."""


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
def policy(tmp_path: Path) -> Path:
    """A policy that can be changed."""
    path = tmp_path / "policy.toml"
    path.write_text(f'extends = "{ROOT / POLICY}"\n')
    return path


@pytest.fixture
def servers(tmp_path: Path, state: Path, policy: Path) -> Iterator[Servers]:  # noqa: ARG001 (it is to be there longer)
    made = Servers(tmp_path, policy=str(policy))
    yield made
    made.clear()


def goes_on(pid: int) -> None:
    """The guest is there still, and beats."""
    before = heartbeats(BEAT)
    eventually(lambda: heartbeats(BEAT) > before, "the guest beats on")
    assert Path(f"/proc/{pid}").exists()


def test_whatever_goes_wrong_is_said_and_the_guest_goes_on(
    servers: Servers, state: Path, policy: Path, tmp_path: Path
) -> None:
    serve = servers.start()
    assert command("start", f"domains/{BEAT}.toml").code == 0
    pid = guests()[BEAT]["pid"]
    wordy = tmp_path / "wordy.toml"
    wordy.write_text(WORDY)
    with Observer() as observer:
        goes_on(pid)
        check_a_policy_that_is_changed(serve, policy, wordy)
        goes_on(pid)
        check_a_second_daemon(serve, servers)
        goes_on(pid)
        check_a_full_disk(serve, state, wordy)
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


def check_a_policy_that_is_changed(serve: Serve, policy: Path, wordy: Path) -> None:
    """At SIGHUP: what is valid holds from then on, also for who is there; what is not changes nothing."""
    before = policy.read_text()
    assert command("start", str(wordy), "--dry-run").code == 0
    policy.write_text(f"{before}[cores]\nshared_floor = 4\n")
    serve.process.send_signal(signal.SIGHUP)
    serve.tells(f"reload: {policy}: in force")
    refused = command("start", str(wordy), "--dry-run")
    assert refused.code == 3
    assert "pool cores left to shared guests: wanted 4" in refused.out
    policy.write_text(f"{before}[rotation]\nslice = 2\n")
    serve.process.send_signal(signal.SIGHUP)
    assert serve.tells(f"{policy}:3: ").startswith(f"{policy}:3: rotation.slice")
    serve.tells(f"reload: {policy}: refused; the policy is as before")
    assert command("start", str(wordy), "--dry-run").code == 3
    policy.write_text(before)
    serve.process.send_signal(signal.SIGHUP)
    eventually(lambda: command("start", str(wordy), "--dry-run").code == 0, "the policy is as it was")


def check_a_second_daemon(serve: Serve, servers: Servers) -> None:
    code, lines = servers.fails()
    assert code == 3, lines
    assert f"process {serve.process.pid} " in lines[-1]


def check_a_full_disk(serve: Serve, state: Path, wordy: Path) -> None:
    """No start without a journal, and one line says so; ends are not held up; it heals by itself."""
    filler = state / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    refused = command("start", str(wordy), "--count", "2")
    assert refused.code == 4, refused
    assert len(refused.err.splitlines()) <= 2  # one of them says which accelerator was chosen
    assert "No space left" in refused.err or "full" in refused.err
    serve.tells("the chores cannot write: ")
    begun = [name for name, guest in guests().items() if name != BEAT and guest["pid"]]
    assert len(begun) < 2
    assert not begun or command("stop", *begun).code == 0
    filler.unlink()
    started = command("start", str(wordy))
    assert started.code == 0, started.err
    assert command("stop", "wordy").code == 0


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
    said = [line for line in command("events", "--json").out.splitlines() if f'"{BEAT}"' in line]
    assert not any('"quarantined"' in line or '"gone"' in line for line in said)


def check_a_store_that_is_garbage(serve: Serve, servers: Servers, state: Path) -> Serve:
    serve.process.send_signal(signal.SIGKILL)
    serve.process.wait()
    for file in state.glob("store.sqlite-*"):  # else what it has of the latest pages would do
        file.unlink()
    (state / "store.sqlite").write_bytes(os.urandom(8192))
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

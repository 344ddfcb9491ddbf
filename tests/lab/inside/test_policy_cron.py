"""A policy brought in force by Debian's own cron, with real guests and no scheduler beside it.

All exclusive: two servers that always run, and one more while a window is open. Starting a program costs many seconds
here, so one story carries all the checks; what it types itself runs in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.lab.inside.looking import (
    ORCHESTRATOR,
    PATIENCE,
    ROOT,
    command,
    emulators,
    eventually,
    guests,
    heartbeats,
    process,
)

LOCK = Path("/run/orchestrator/policy-run.lock")
THEIRS = "# a user's own\nMAILTO=somebody@example.org\n@yearly /bin/true % keep\n"
MINUTE = timedelta(minutes=1)


def definition(name: str, architecture: str) -> str:
    payload = ROOT / "domains" / "build" / f"heartbeat-{architecture}.elf"
    return (
        f'name = "{name}"\narchitecture = "{architecture}"\nvcpus = 1\nmemory = "64 MiB"\nmode = "exclusive"\n'
        f'[boot]\npayload = "{payload}"\n'
    )


def write_policy(directory: Path) -> Path:
    """Write a policy and the definitions that it names."""
    (directory / "server.toml").write_text(definition("server", "i386"))
    (directory / "batch.toml").write_text(definition("batch", "armv7l"))
    path = directory / "100% odd policy's.toml"
    path.write_text('[[guest]]\ndefinition = "server.toml"\ncount = 2\n')
    return path


def add_window(policy: Path) -> datetime:
    """Add a window that opens in the next minute, for one minute; return when that is."""
    opens = (datetime.now() + timedelta(seconds=5)).replace(second=0, microsecond=0) + MINUTE
    window = (
        f'[[window]]\nname = "batch"\ncron = "{opens.minute} {opens.hour} * * *"\nduration = "1 min"\n'
        '[[window.set.guest]]\ndefinition = "batch.toml"\n'
    )
    policy.write_text(policy.read_text() + window)
    return opens


@pytest.fixture
def cron() -> Iterator[None]:
    """Debian's cron, and a crontab with somebody's own lines in it."""
    subprocess.run(["crontab", "-"], input=THEIRS, text=True, check=True)
    with subprocess.Popen(["cron", "-f"]) as daemon:
        yield
        daemon.terminate()
    if emulators():
        process("stop", "--all")


def crontab() -> str:
    return subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=True).stdout


def guest_processes() -> int:
    """Count the QEMUs that carry a guest: libvirt asks others for their capabilities."""
    found = 0
    for pid in emulators():
        with contextlib.suppress(OSError):
            found += b"guest=" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def runs_policy() -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return Path(f"/proc/{json.loads(LOCK.read_text())['pid']}").exists()
    return False


@pytest.mark.usefixtures("cron")
def test_a_window_is_opened_and_closed_by_cron_alone(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    a_run_is_killed_halfway_and_another_does_not_get_in_between(policy)
    opens = add_window(policy)
    installed = command("policy", "cron", str(policy), "--install")
    assert installed.code == 0, installed.err
    assert crontab().startswith(THEIRS)
    assert "batch" not in guests()
    eventually(lambda: heartbeats("server-1") > 0 and heartbeats("server-2") > 0, "what was killed is completed")
    servers = {name: guest["pid"] for name, guest in guests().items() if name != "batch"}
    assert set(servers) == {"server-1", "server-2"}
    eventually(lambda: heartbeats("batch") > 0, "the window opens")
    assert datetime.now() >= opens
    assert {guest["state"] for guest in guests().values()} == {"running"}
    assert len({core for guest in guests().values() for core in guest["cores"]} & {2, 3, 4}) == 3
    eventually(lambda: "batch" not in guests(), "the window closes")
    assert datetime.now() >= opens + MINUTE
    eventually(lambda: not runs_policy(), "the run ends")
    assert {name: guest["pid"] for name, guest in guests().items()} == servers, "the servers have gone on"
    planned = command("policy", "plan", str(policy))
    assert (planned.code, planned.err) == (0, ""), planned.out
    assert command("policy", "cron", str(policy), "--remove").code == 0
    assert crontab() == THEIRS


def a_run_is_killed_halfway_and_another_does_not_get_in_between(policy: Path) -> None:
    with subprocess.Popen([ORCHESTRATOR, "policy", "run", str(policy)], cwd=ROOT) as run:
        eventually(runs_policy, "a run begins", None)
        second = command("policy", "run", str(policy))
        assert (second.code, second.out) == (3, "")
        assert f"another policy run runs on this host: process {run.pid} of root" in second.err
        limit = time.monotonic() + PATIENCE
        while not guest_processes():
            assert run.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
    assert guest_processes() > 0
    assert sum(heartbeats(name) > 0 for name in ("server-1", "server-2")) < 2, "it was too late to kill it halfway"

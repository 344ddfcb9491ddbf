"""Real guests on real pool cores: placement, proof, end, and what other processes see meanwhile.

Starting a guest or a program costs many seconds here, so one run carries all the checks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.inside.looking import (
    ROOT,
    allowed_cores,
    ask,
    command,
    emulators,
    eventually,
    guests,
    heartbeats,
    process,
)
from tests.lab.inside.observer import Observer

Run = Callable[..., "subprocess.Popen[str]"]

WIDE = """
name = "wide"
architecture = "aarch64"
vcpus = 2
memory = "64 MiB"
mode = "exclusive"
emulator = "isolate"
iothreads = 1
rng = true

[boot]
payload = "{root}/domains/build/heartbeat-aarch64.elf"

[[disk]]
path = "{root}/domains/build/bootsector.img"
format = "raw"
overlay = true
"""


def test_guests_run_where_their_placement_says_and_outlive_their_runner(run: Run, tmp_path: Path) -> None:
    wide = tmp_path / "wide.toml"
    wide.write_text(WIDE.format(root=ROOT))
    image = ROOT / "domains/build/bootsector.img"
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    names = ("wide", "bootsector", "heartbeat-armv7l")
    with Observer() as observer:
        runner = run(str(wide), *(f"domains/{name}.toml" for name in names[1:]))
        eventually(lambda: all(heartbeats(name) >= 3 for name in names), "three guests beat", runner)
        seen = guests()
        assert set(seen) == set(names)
        check_placement(seen)
        check_what_others_may_do(seen)
        assert observer.report().looks > 50
        assert observer.violations == []
    check_that_a_moved_thread_is_put_back(seen["wide"])
    runner.kill()
    runner.wait()
    check_that_a_moved_thread_is_found(seen["wide"])
    check_that_orphans_can_be_stopped()
    assert hashlib.sha256(image.read_bytes()).hexdigest() == digest


def check_placement(seen: dict[str, Any]) -> None:
    """The kernel agrees with `ps` about every single thread, and no two guests have a core in common."""
    held = [core for guest in seen.values() for core in guest["cores"]]
    assert len(held) == len(set(held)) == 5
    assert len(seen["wide"]["cores"]) == 3
    for guest in seen.values():
        assert (guest["accelerator"], guest["state"]) == ("tcg", "running")
        vcpus = set()
        for task in Path(f"/proc/{guest['pid']}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # QEMU's workers come and go
                name, allowed = (task / "comm").read_text().strip(), allowed_cores(task)
                if name.startswith("CPU "):
                    index = int(name.split()[1].split("/")[0])
                    vcpus.add(index)
                    assert allowed == {guest["vcpus"][index]}, name
                else:
                    assert allowed == set(guest["emulator"]), name
        assert vcpus == set(range(len(guest["vcpus"])))


def check_what_others_may_do(seen: dict[str, Any]) -> None:
    """Other processes see the run and may stop a guest of it, but not run guests beside it."""
    holders = {core["id"]: core["holder"] for core in ask("cores")["cores"]}
    assert holders[0] is holders[1] is None
    assert all(holders[core] == name for name, guest in seen.items() for core in guest["cores"])
    pins = ask("audit", "pins")["guests"]
    assert [(pin["on_reserved"], pin["strays"]) for pin in pins] == [(0, [])] * 3
    second = command("run", "domains/heartbeat-i386.toml", "--for", "1s")
    assert (second.code, "runs guests here already" in second.err) == (3, True)
    assert command("stop", "heartbeat-armv7l").code == 0
    eventually(lambda: set(guests()) == {"wide", "bootsector"}, "the stopped guest is gone")


def move_away(pid: int) -> None:
    """Let a guest's main thread run on core 1, which its cpuset has not."""
    Path("/sys/fs/cgroup/cgroup.procs").write_text(str(pid))
    os.sched_setaffinity(pid, {1, 2})


def check_that_a_moved_thread_is_put_back(guest: dict[str, Any]) -> None:
    move_away(guest["pid"])
    eventually(lambda: os.sched_getaffinity(guest["pid"]) == set(guest["emulator"]), "it is put back")


def check_that_a_moved_thread_is_found(guest: dict[str, Any]) -> None:
    """Where nobody runs the guest any more, nobody puts it back."""
    move_away(guest["pid"])
    moved = command("audit", "pins")
    assert moved.code == 1
    assert "may run on 1-2" in moved.out


def check_that_orphans_can_be_stopped() -> None:
    before = heartbeats("bootsector")
    eventually(lambda: heartbeats("bootsector") > before, "an orphan goes on")
    assert {guest["state"] for guest in guests().values()} == {"running"}
    refused = process("run", "domains/bootsector.toml", "--for", "1s")
    assert (refused.code, "guest name: wanted bootsector, not in use" in refused.err) == (3, True)
    stopped = process("stop", "--all")
    assert stopped.code == 0, stopped.err
    assert guests() == {}
    assert emulators() == []

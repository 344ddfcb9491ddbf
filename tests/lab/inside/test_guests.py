"""Real guests on real pool cores: placement, proof, end, and what other processes see meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.inside.looking import ROOT, Observer, allowed_cores, ask, emulators, eventually, guests, orchestrator

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


def heartbeats(name: str) -> int:
    return sum(line.startswith("heartbeat ") for line in ask("logs", name)["lines"])


def test_every_architecture_runs_where_its_placement_says(run: Run, tmp_path: Path) -> None:
    wide = tmp_path / "wide.toml"
    wide.write_text(WIDE.format(root=ROOT))
    others = [f"domains/heartbeat-{name}.toml" for name in ("i386", "x86_64", "armv7l")]
    with Observer() as observer:
        process = run(str(wide), *others, "--for", "2m")
        eventually(lambda: len(guests()) == 4, "four guests run")
        for name in guests():
            eventually(lambda name=name: heartbeats(name) >= 3, f"{name} beats")
        seen = guests()
        check_placement(seen)
        check_other_commands(seen)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count(", 0 threads on reserved cores") == 4
    assert observer.samples > 50
    assert observer.violations == []
    assert guests() == {}
    assert emulators() == []


def check_placement(seen: dict[str, Any]) -> None:
    """The kernel agrees with `ps` about every single thread, and no two guests have a core in common."""
    held = [core for guest in seen.values() for core in guest["cores"]]
    assert len(held) == len(set(held)) == 6
    assert {guest["accelerator"] for guest in seen.values()} == {"tcg"}
    assert len(seen["wide"]["cores"]) == 3
    for guest in seen.values():
        vcpus, emulator = guest["vcpus"], set(guest["emulator"])
        for task in Path(f"/proc/{guest['pid']}/task").iterdir():
            name = (task / "comm").read_text().strip()
            if name.startswith("CPU "):
                index = int(name.split()[1].split("/")[0])
                assert allowed_cores(task) == {vcpus[index]}, name
            else:
                assert allowed_cores(task) == emulator, name


def check_other_commands(seen: dict[str, Any]) -> None:
    """Other processes see the run, may look at it and stop a guest of it, but not run guests beside it."""
    holders = {core["id"]: core["holder"] for core in ask("cores")["cores"]}
    assert holders[0] is holders[1] is None
    assert all(holders[core] == name for name, guest in seen.items() for core in guest["cores"])
    pins = ask("audit", "pins")["guests"]
    assert [(pin["on_reserved"], pin["strays"]) for pin in pins] == [(0, [])] * 4
    second = orchestrator("run", "domains/heartbeat-i386.toml", "--for", "1s")
    assert second.returncode == 3
    assert "runs guests here already" in second.stderr
    i386 = seen["heartbeat-i386"]
    os.sched_setaffinity(i386["pid"], {1, 2})
    moved = orchestrator("audit", "pins")
    assert moved.returncode == 1
    assert "may run on 1-2" in moved.stdout
    os.sched_setaffinity(i386["pid"], i386["cores"])
    assert orchestrator("stop", "heartbeat-armv7l").returncode == 0
    eventually(lambda: "heartbeat-armv7l" not in guests(), "the stopped guest is gone")


def test_guests_survive_the_death_of_their_runner_and_can_be_stopped(run: Run) -> None:
    process = run("domains/heartbeat-aarch64.toml", "domains/heartbeat-armv7l.toml")
    eventually(lambda: len(guests()) == 2 and heartbeats("heartbeat-aarch64") > 0, "two guests run")
    process.kill()
    process.wait()
    left = guests()
    assert {guest["state"] for guest in left.values()} == {"running"}
    before = heartbeats("heartbeat-aarch64")
    eventually(lambda: heartbeats("heartbeat-aarch64") > before, "the orphan goes on")
    refused = orchestrator("run", "domains/heartbeat-aarch64.toml", "--for", "1s")
    assert refused.returncode == 3
    assert "a guest of this name runs already" in refused.stderr
    stopped = orchestrator("stop", "--all")
    assert stopped.returncode == 0, stopped.stderr
    assert guests() == {}
    assert emulators() == []


def test_a_guest_whose_qemu_is_killed_is_reported(run: Run) -> None:
    process = run("domains/heartbeat-aarch64.toml", "--for", "2m")
    eventually(lambda: "heartbeat-aarch64" in guests(), "the guest runs")
    os.kill(guests()["heartbeat-aarch64"]["pid"], signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out.rstrip().endswith("crashed")


def test_a_disk_with_an_overlay_boots_and_is_not_written(run: Run) -> None:
    image = ROOT / "domains/build/bootsector.img"
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    process = run("domains/bootsector.toml", "--heartbeats", "3", "--for", "2m")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_more_guests_than_cores_are_refused_together() -> None:
    done = orchestrator("run", "domains/heartbeat-aarch64.toml", "--count", "7", "--for", "1s")
    assert done.returncode == 3
    assert "heartbeat-aarch64-7: free pool cores: wanted 1, available 0" in done.stderr
    assert guests() == {}

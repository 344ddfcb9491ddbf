"""Schedulers and QEMUs of real guests are killed: no guest is lost, no core has two holders, and owners can read why.

The scheduler is killed at 25 random moments of a rotation at 100 ms slices; ORCHESTRATOR_KILLS=200 makes them two
hundred, which takes some minutes. Guests have the pool, or core 1 on a host that has none, see `mortal`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.functional.mortals import Mortals, folders_in

ROOT = Path(__file__).parents[2]
DEFINITIONS = [str(ROOT / f"domains/heartbeat-{architecture}.toml") for architecture in ("i386", "aarch64", "armv7l")]
KILLS = int(os.environ.get("ORCHESTRATOR_KILLS") or 25)
LONGEST_LIFE = 0.8
"""Seconds; as long as it takes all six to have a turn, so that every moment of a rotation can be met."""

PATIENCE = 60.0

POLICY = """
[hypervisor]
accelerator = "tcg"

[rotation]
slice = "100 ms"
minimum_run = "50 ms"
patience = "1 s"
confirm = "30 s"
"""


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """On a tmpfs, where libvirt's many writes cost little, and with a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="o-", dir="/dev/shm"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def mortals(directory: Path) -> Iterator[Mortals]:
    """Schedulers of six guests, which a first one has left."""
    policy = directory / "policy.toml"
    policy.write_text(POLICY)
    folders = folders_in(directory)
    made = Mortals(policy, folders)
    try:
        first = made.begin(*DEFINITIONS)
        made.go(first)
        made.kill(first)
        yield made
    finally:
        made.clear()
        for pid in emulators(directory).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def emulators(directory: Path) -> dict[str, int]:
    """Return the pid of each guest's QEMU, as /proc has them."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            name = next((each for each in arguments if each.startswith(b"guest=")), None)
            if name is not None and any(os.fsencode(directory) in each for each in arguments):
                found[name[6:].split(b",")[0].decode()] = int(entry.name)
    return found


def computing(pids: Mapping[str, int]) -> set[str]:
    """Return the guests whose vCPU uses any time within a while: these payloads always compute while they run."""

    def used(pid: int) -> int:
        (vcpu,) = (
            task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().startswith("CPU 0")
        )
        return sum(map(int, (vcpu / "stat").read_text().rpartition(")")[2].split()[11:13]))

    before = {name: used(pid) for name, pid in pids.items()}
    time.sleep(0.05)
    return {name for name, pid in pids.items() if used(pid) > before[name]}


def soon_computing(pids: Mapping[str, int]) -> set[str]:
    """Wait until a guest computes."""
    limit = time.monotonic() + PATIENCE
    while not (found := computing(pids)):
        assert time.monotonic() < limit, "no guest runs"
    return found


def check_found(found: Any, pids: dict[str, int]) -> None:
    """Nobody is lost, no core has two holders, and who holds none does not run."""
    assert {name: guest["pid"] for name, guest in found["guests"].items()} == pids
    assert (found["notes"], found["gone"], found["remembered"]) == ([], [], [])
    assert found["stored"] == sorted(pids)
    holders = list(found["held"].values())
    assert len(set(holders)) == len(holders)  # each has one vCPU, so it holds one core
    assert {name for name, guest in found["guests"].items() if guest["state"] == "running"} <= set(holders)
    assert computing(pids) <= set(holders)


def test_nothing_is_lost_whenever_the_scheduler_is_killed(
    mortals: Mortals, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(4)
    pids = emulators(directory)
    assert len(pids) == 6
    took = []
    for number in range(KILLS):
        found = mortals.begin()
        took.append(found["seconds"])
        check_found(found, pids)
        mortals.go(found)
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        mortals.kill(found)
        assert emulators(directory) == pids, f"after kill {number}"
    check_the_same_answer_without_the_database(mortals, directory, pids)
    check_that_all_go_on(mortals, directory, pids)
    took.sort()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{KILLS} schedulers killed, 6 guests taken over within median {1000 * statistics.median(took):.0f} ms, "
            f"at most {1000 * took[-1]:.0f} ms\n"
        )


def check_the_same_answer_without_the_database(mortals: Mortals, directory: Path, pids: dict[str, int]) -> None:
    """The domains' own metadata says all that the store did."""
    with_it = mortals.begin()
    mortals.kill(with_it)
    for file in (directory / "state").glob("store.sqlite*"):
        file.unlink()
    without = mortals.begin()
    check_found(without, pids)
    mortals.kill(without)
    for name, guest in without["guests"].items():
        before = with_it["guests"][name]
        assert (guest["owner"], guest["specification"]) == (before["owner"], before["specification"])


def check_that_all_go_on(mortals: Mortals, directory: Path, pids: dict[str, int]) -> None:
    """Each prints more under the next scheduler."""
    logs = {name: directory / "run" / "guests" / name / "serial.log" for name in pids}
    before = {name: log.stat().st_size for name, log in logs.items()}
    last = mortals.begin()
    mortals.go(last)
    limit = time.monotonic() + PATIENCE
    while not all(log.stat().st_size > before[name] for name, log in logs.items()):
        assert time.monotonic() < limit, "not all go on"
        time.sleep(0.05)
    mortals.kill(last)


def test_a_killed_qemu_is_noticed_and_its_core_given_on(
    mortals: Mortals, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20)
    mortals.go(mortals.begin())
    took = []
    for _ in range(4):
        pids = emulators(directory)
        name = chance.choice(sorted(soon_computing(pids)))
        killed = time.monotonic()
        os.kill(pids.pop(name), signal.SIGKILL)
        told = mortals.told()
        assert (told["what"], told["guest"]) == ("gone", name)
        assert told["why"]
        took.append(1000 * (told["at"] - killed))
        soon_computing(pids)  # its core has been given on
    with capsys.disabled():
        sys.stdout.write(f"\na killed QEMU was noticed after {', '.join(f'{ms:.0f}' for ms in took)} ms\n")

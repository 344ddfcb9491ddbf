"""Runs the tests in inside/ where there are cores for guests: in the nested lab.

The six suites share twenty guests on one boot, which takes a quarter of an hour in all: `make suites` runs all of them,
and what else takes minutes, `make test` the first two. ORCHESTRATOR_KILLS says at how many moments the last one kills
the scheduler.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.inside.observer import compile_looker

INSIDE = Path(__file__).parent / "inside"
ROOT = INSIDE.parents[2]
ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")

SUITES = (
    "test_basic_operations.py",
    "test_stress_twenty_guests.py",
    "test_scheduler_integration.py",
    "test_performance_figures.py",
    "test_uniform_interface.py",
    "test_exception_handling.py",
)
"""In this order: the stress is to be disturbed by nobody, and what comes after it disturbs more and more."""

ALL = os.environ.get("ORCHESTRATOR_SUITES") == "all"
CHOSEN = SUITES if ALL else SUITES[:2]
takes_minutes = pytest.mark.skipif(not ALL, reason="takes minutes: `make suites`")

LONG = {
    "the-commands-of-the-documentation": ("--cpus 8 --memory 6G", "test_documented.py"),
    "servers-that-are-moved-and-resized": ("--cpus 6", "test_moves.py"),
    "faults-around-a-daemon": ("--cpus 6", "test_faults.py"),
    "payloads-of-users-in-guests": ("--cpus 6", "test_payloads.py"),
    "states-and-clones-under-a-daemon": ("--cpus 6", "test_states.py"),
    "threads-that-are-moved-and-the-shield": ("--cpus 6", "test_drift.py test_shield.py"),
    "what-serves-devices-is-on-core-1": ("--cpus 4", "test_back_ends.py"),
    "ceilings-and-hostile-guests": ("--cpus 6", "test_ceilings.py test_hostile.py"),
    "many-users-at-once": ("--cpus 5", "test_many_users.py"),
    "a-window-that-opens-under-a-daemon": ("--cpus 6 --numa 2", "test_window_moves.py"),
    "a-libvirtd-that-is-killed": ("--cpus 5", "test_libvirt_daemon.py"),
    "the-guard-on-a-real-console": ("--cpus 5", "test_guard.py"),
}
"""What takes minutes: the shape of a lab, and the tests that run in it, in this order."""

WARM = """
import sys, tempfile
from pathlib import Path
import libvirt
from orchestrator.host import embed
with tempfile.TemporaryDirectory() as root:
    embed.prepare_root(Path(root), Path(sys.argv[1]))
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(f"qemu:///embed?root={root}")
    for machine, emulator in (("i686", "i386"), ("x86_64", "x86_64"), ("armv7l", "arm"), ("aarch64", "aarch64")):
        connection.getDomainCapabilities(f"/usr/bin/qemu-system-{emulator}", machine, None, "qemu")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have libvirt ask each QEMU for its capabilities here, and compile: in the lab that takes several seconds each.

    It must not see /dev/kvm, which the lab has not.
    """
    directory = tmp_path_factory.mktemp("cache")
    compile_looker(directory)
    hidden = "mount --bind /etc/hostname /dev/kvm && mount -o remount,bind,ro /dev/kvm || [ ! -e /dev/kvm ]"
    warm = f'{hidden} && exec "$@"'
    subprocess.run(
        [
            *("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-c", warm, "sh"),
            *(sys.executable, "-c", WARM, str(directory / "orchestrator" / "libvirt")),
        ],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    return directory


def run_in_lab(*shape: str, tests: tuple[str, ...], cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kills = [f"ORCHESTRATOR_KILLS={os.environ['ORCHESTRATOR_KILLS']}"] if "ORCHESTRATOR_KILLS" in os.environ else []
    command = [str(ORCHESTRATOR), "lab", "run", "--timeout", "25m", *shape, "--"]
    command += ["env", "ORCHESTRATOR_INSIDE_LAB=1", f"XDG_CACHE_HOME={cache}", *kills]
    command += [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--durations=12"]
    command += [str(INSIDE / test) for test in tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1600, check=False)
    assert done.returncode == 0, f"in the lab:\n{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
    with capsys.disabled():
        sys.stdout.writelines(f"{line}\n" for line in ("", *done.stdout.splitlines()) if "figure: " in line)


def test_guests_on_a_host_with_smt_and_two_nodes(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ("--topology", "sockets=2,cores=2,threads=2", "--numa", "2", "--isolate")
    run_in_lab(*shape, tests=("test_smt_and_numa.py",), cache=cache, capsys=capsys)


def test_users_of_a_daemon_of_roots(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in_lab("--cpus", "4", tests=("test_users.py",), cache=cache, capsys=capsys)


@takes_minutes
@pytest.mark.parametrize(("shape", "tests"), LONG.values(), ids=LONG)
def test_what_takes_minutes(shape: str, tests: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in_lab(*shape.split(), tests=tuple(tests.split()), cache=cache, capsys=capsys)


def test_mixed_guests_on_six_cores(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in_lab("--cpus", "8", "--memory", "6G", tests=CHOSEN, cache=cache, capsys=capsys)


@pytest.mark.skipif(
    not ALL, reason="eight minutes, since cron begins nothing but at a minute's beginning: `make suites`"
)
def test_policies_under_cron(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in_lab("--cpus", "5", tests=("test_policy_cron.py",), cache=cache, capsys=capsys)

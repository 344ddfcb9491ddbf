"""Runs the tests in inside/ where there are cores for guests: in the nested lab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")


def run_in_lab(*shape: str, tests: str) -> None:
    command = [str(ORCHESTRATOR), "lab", "run", "--timeout", "15m", *shape, "--", "env", "ORCHESTRATOR_INSIDE_LAB=1"]
    command += [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=8", str(INSIDE / tests)]
    done = subprocess.run(command, cwd=INSIDE.parents[2], capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, f"in the lab:\n{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


def test_guests_of_four_architectures_on_six_cores() -> None:
    run_in_lab("--cpus", "8", tests="test_guests.py")


def test_guests_on_a_host_with_smt_and_two_nodes() -> None:
    shape = ("--topology", "sockets=2,cores=2,threads=2", "--numa", "2", "--isolate")
    run_in_lab(*shape, tests="test_smt_and_numa.py")


def test_the_daemon_on_four_cores() -> None:
    run_in_lab("--cpus", "4", tests="test_serve.py")


def test_users_of_a_daemon_of_roots() -> None:
    run_in_lab("--cpus", "4", tests="test_users.py")

"""The hand-over bench on real guests, few and short: what it reports, and that nothing of it is left.

Where this host has a pool it is used; else core 1 is borrowed, as `--borrow-service-core` does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.bench.borrowed import may_lend
from orchestrator.bench.handover import BARE, ENGINE, LIBVIRT, WITH_DECISION
from orchestrator.host.sysfs import read_topology
from tests.functional.program import Program

BORROW = may_lend(read_topology())

SHORT = f"""
import asyncio, json
from orchestrator import wiring
from orchestrator.bench.handover import Extent
from orchestrator.core.durations import Duration

extent = Extent(rounds=4, run=0.002, guests=2, seconds=0.5, slices=(Duration.parse("50 ms"),))
report = asyncio.run(wiring.bench.handover(None, borrow={BORROW}, tell=lambda *_: None, extent=extent))
print(json.dumps(wiring.bench.describe_handover(report)))
"""


def test_a_short_measurement_reports_all_three_ways_and_leaves_nothing(program: Program) -> None:
    subprocess.run(["make", "--silent", "-C", Path(__file__).parents[2] / "domains"], check=True, timeout=600)
    run = program.directory / "r"
    variables = {"PATH": os.environ["PATH"], "HOME": str(program.directory), "ORCHESTRATOR_RUNTIME_DIR": str(run)}
    done = subprocess.run(
        [sys.executable, "-c", SHORT], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["borrowed_service_core"] is BORROW
    assert told["cores"] == [1] if BORROW else 1 not in told["cores"]
    assert all(told["machine"][key] for key in ("cpu", "python", "qemu", "libvirt", "accelerator"))
    assert set(told["ways"]) == {ENGINE, WITH_DECISION, BARE, LIBVIRT}
    for times in told["ways"].values():
        assert times["handovers"] == 8
        assert 0 < times["median"] <= times["p90"] <= times["p99"]
    assert told["ways"][ENGINE]["median"] < told["ways"][WITH_DECISION]["median"]
    assert set(told["ratios"]) == set(told["ways"]) - {BARE}
    (use,) = told["useful"]
    assert (use["slice_ms"], use["guests"]) == (50, 2)
    assert 0 < use["useful"] <= 1
    assert use["handovers"] > 0 or len(use["cores"]) > 1
    assert list((run / "guests").iterdir()) == []
    assert processes_that_name(run) == []
    shutil.rmtree(run)


def test_without_a_pool_one_line_says_what_to_do(program: Program) -> None:
    outcome = program("bench", "handover", "--policy", "none.toml")
    assert (outcome.code, outcome.out, len(outcome.lines)) == (4, "", 1)
    assert outcome.err.startswith("this host has no pool core: ")
    assert "`orchestrator lab run -- COMMAND`" in outcome.err
    assert ("--borrow-service-core" in outcome.err) is BORROW
    assert program.started() == set()


def processes_that_name(directory: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in command:
            found.append(command.decode("utf-8", "replace"))
    return found


IDLE = f"""
import asyncio, json
from dataclasses import asdict
from orchestrator.wiring import idle
from orchestrator.wiring.site import load_policy

found = asyncio.run(
    idle.measure(load_policy(None), borrow={BORROW}, tell=lambda *_: None, counts=(0, 2), seconds=0.5)
)
print(json.dumps([asdict(each) for each in found]))
"""


def test_what_it_costs_to_idle_is_measured_with_guests_that_stand_still(program: Program) -> None:
    run = program.directory / "r"
    variables = {"PATH": os.environ["PATH"], "HOME": str(program.directory), "ORCHESTRATOR_RUNTIME_DIR": str(run)}
    done = subprocess.run(
        [sys.executable, "-c", IDLE], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    none, two = json.loads(done.stdout)
    assert (none["guests"], two["guests"]) == (0, 2)
    assert 0 < none["cpu"] < 1
    assert two["memory"] >= none["memory"] > 10_000_000
    assert processes_that_name(run) == []
    shutil.rmtree(run)

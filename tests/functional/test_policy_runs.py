"""`orchestrator policy check`, `plan`, `run` and `cron` as processes, where no scheduler runs and no guest can."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.host.writer_lock import WriterLock
from tests.functional.program import GUEST, Program

POLICY = """\
[cores]
shared_floor = 1

[[guest]]
definition = "guest.toml"

[[window]]
name = "always"
cron = "* * * * *"
duration = "2 min"

[[window.set.guest]]
definition = "more.toml"
count = 2
"""


@pytest.fixture
def policy(program: Program) -> str:
    program.write("more.toml", GUEST.replace('"beat"', '"more"'))
    return program.write("p.toml", POLICY)


def test_a_policy_is_checked_with_every_definition_that_it_names(program: Program, policy: str) -> None:
    assert program("policy", "check", policy).out == "p.toml: valid; 1 guest to keep running, 1 window\n"
    assert program.json("policy", "check", policy) == {"file": "p.toml", "valid": True, "faults": []}
    program.write("more.toml", GUEST.replace("vcpus = 1", "vcpus = 0"))
    program.write("p.toml", POLICY.replace('"guest.toml"', '"nowhere.toml"'))
    at, directory = program("policy", "check", policy), program.directory
    assert (at.code, at.out) == (2, "")
    first, second = at.lines
    assert (
        first == f"p.toml:5: guest[0].definition: {directory}/nowhere.toml: cannot be read: No such file or directory"
    )
    assert second.startswith(f"{directory}/more.toml:3: vcpus: ")
    told = program.json("policy", "check", policy, code=2)
    assert [(fault["line"], fault["key"]) for fault in told["faults"]] == [(5, "guest[0].definition"), (3, "vcpus")]


def test_a_name_is_for_one_guest_but_windows_need_not_be_open_at_once(program: Program, policy: str) -> None:
    other = POLICY.partition("[[window]]")[2].replace('"always"', '"other"').replace("* * * * *", "0 0 1 1 *")
    program.write("p.toml", f"{POLICY}\n[[window]]{other}")
    assert program("policy", "check", policy).code == 0
    program.write("p.toml", POLICY.replace("count = 2", "").replace("more.toml", "guest.toml"))
    outcome = program("policy", "check", policy)
    told = "a guest called beat is listed by guest[0] already; a name is for one"
    assert (outcome.code, outcome.lines) == (2, [f"p.toml:13: window[0].set.guest[0].definition: {told}"])


def test_a_plan_says_what_cannot_be_had_here_and_a_run_does_nothing_about_it(program: Program, policy: str) -> None:
    told = program.json("policy", "plan", policy, code=10)
    assert (told["scheduler"], told["guests"]) == (False, 3)
    changes = [(each["what"], each["guest"]) for each in told["changes"]]
    assert changes == [("unscheduled", name) for name in ("beat", "more-1", "more-2")], "the window is open"
    outcome = program("policy", "run", policy)
    assert (outcome.code, outcome.out) == (4, "policy run p.toml: 3 failed; 3 guests wanted\n")
    assert outcome.lines[0] == (
        "beat: cannot be started: it is shared, and no scheduler runs that gives it turns; `orchestrator serve` does"
    )
    assert program.started() <= {"policy-run.lock"}


def test_a_host_without_a_pool_is_told_so(program: Program) -> None:
    program.write("guest.toml", GUEST.replace("vcpus", 'mode = "exclusive"\nvcpus'))
    program.write("p.toml", '[[guest]]\ndefinition = "guest.toml"\n')
    assert program("policy", "plan", "p.toml").out.startswith("start beat of ")
    outcome = program("policy", "run", "p.toml")
    assert outcome.code == 4
    assert outcome.lines[0].startswith("this host has no pool core: ")


def test_a_second_run_leaves_with_a_clear_line(program: Program, policy: str) -> None:
    runtime = program.directory / "r"
    runtime.mkdir(mode=0o700)
    lock = WriterLock(runtime / "policy-run.lock")
    lock.acquire()
    outcome = program("policy", "run", policy)
    lock.release()
    assert (outcome.code, outcome.out) == (3, "")
    (line,) = outcome.lines
    assert line.startswith(f"{runtime}/policy-run.lock: another policy run runs on this host: process ")
    assert line.endswith("; it is left to that one")
    assert program("policy", "plan", policy).code == 10, "a plan needs no lock"


def test_the_time_limit_is_kept_and_told(program: Program, policy: str) -> None:
    outcome = program("policy", "run", policy, "--limit", "1ms")
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.lines == [
        f"{program.directory}/p.toml: not done within 0.001 s (--limit gives it more); the next run goes on from there"
    ]


def test_the_crontab_lines_are_printed_for_a_valid_policy_only(program: Program, policy: str) -> None:
    lines = program("policy", "cron", policy).out.splitlines()
    directory = program.directory
    (entry,) = [line for line in lines if line.startswith("* * * * * ")]
    assert entry.startswith(f"* * * * * ORCHESTRATOR_RUNTIME_DIR={directory}/r ")
    assert entry.endswith(f"/orchestrator policy run {directory}/p.toml | logger -t orchestrator")
    assert any(line.startswith("MAILTO=") for line in lines)
    assert program.json("policy", "cron", policy)["crontab"].splitlines() == lines
    program.write("p.toml", "colour = 1\n")
    outcome = program("policy", "cron", policy, "--install")
    assert (outcome.code, outcome.out, len(outcome.lines)) == (2, "", 1)
    assert program("policy", "cron", policy, "--install", "--remove").code == 2


def test_the_systemd_units_come_and_go_and_are_what_systemd_takes(program: Program, policy: str) -> None:
    (program.directory / "units").mkdir()
    paths = program.json("policy", "cron", policy, "--systemd", "units")["units"]
    assert [Path(path).name for path in paths] == ["orchestrator-policy.service", "orchestrator-policy.timer"]
    again = program("policy", "cron", policy, "--systemd", "units")
    assert "systemctl" in again.out.splitlines()[-1]
    verifier = shutil.which("systemd-analyze")
    if verifier is not None:  # systemd's own, so where there is none there is nobody to take the units either
        command = [verifier, "verify", *(str(program.directory / path) for path in paths)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (told.returncode, [line for line in told.stderr.splitlines() if "orchestrator-policy" in line]) == (
            0,
            [],
        )
    removed = json.loads(program("policy", "cron", policy, "--systemd", "units", "--remove", "--json").out)
    assert len(removed["units"]) == 2
    assert list((program.directory / "units").iterdir()) == []

"""Files that are wrong: each fault has a line of its own, and nothing is started."""

from __future__ import annotations

import random

import pytest

from tests.functional.program import GUEST, Program

BROKEN: dict[str, tuple[str | bytes, list[str]]] = {
    "zero vcpus": (GUEST.replace("vcpus = 1", "vcpus = 0"), ["3: vcpus: 0 is not possible"]),
    "an unknown key": ('colour = "red"\n' + GUEST, ["1: colour: unknown key"]),
    "wrong types": (
        GUEST.replace("vcpus = 1", 'vcpus = "two"').replace('"beat"', "7"),
        ["1: name: 7 is not", "3: vcpus: 'two' is not a whole number"],
    ),
    "absurd memory": (GUEST.replace("64 MiB", "900 TiB"), ["4: memory: 900 TiB is more than an i386 machine can"]),
    "a missing payload": (GUEST.replace("payload.elf", "gone.elf"), ["7: boot.payload: ", "gone.elf does not exist"]),
    "a path that climbs": (GUEST.replace("payload.elf", "../payload.elf"), ["7: boot.payload: ", "'..'"]),
    "noise": (random.Random(1).randbytes(1_000_000), ["larger than any definition"]),
    "nothing": ("", ["name: missing", "architecture: missing", "vcpus: missing", "memory: missing", "boot: missing"]),
    "no TOML": ("name: beat\n", ["1: not TOML"]),
}


@pytest.mark.parametrize(("text", "told"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("command", ["run", "xml"])
def test_a_broken_definition_is_told_fault_by_fault_and_starts_nothing(
    program: Program, command: str, text: str | bytes, told: list[str]
) -> None:
    outcome = program(command, program.write("broken.toml", text))
    assert (outcome.code, outcome.out) == (2, "")
    assert all(line.startswith("broken.toml:") and len(line) < 400 for line in outcome.lines)
    for fault in told:
        assert any(fault in line for line in outcome.lines), outcome.err
    assert len(outcome.lines) <= len(told)
    assert program.started() == set()


def test_faults_of_all_files_are_told_at_once(program: Program) -> None:
    program.write("one.toml", BROKEN["zero vcpus"][0])
    program.write("two.toml", BROKEN["an unknown key"][0])
    outcome = program("run", "one.toml", "guest.toml", "two.toml")
    assert outcome.code == 2
    assert [line.partition(":")[0] for line in outcome.lines] == ["one.toml", "two.toml"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone.toml", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("/dev/zero", "is neither a file nor a pipe"),
    ],
)
def test_a_definition_that_cannot_be_read(program: Program, path: str, reason: str) -> None:
    outcome = program("run", path)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert outcome.err.startswith(f"{path}: {reason}")


def test_a_broken_policy_is_told_with_its_lines(program: Program) -> None:
    program.write("policy.toml", '[cores]\nreserved = "x"\ncolour = "red"\n')
    for command in (["ps"], ["cores"], ["run", "guest.toml"], ["stop", "--all"], ["doctor"], ["host", "topology"]):
        outcome = program(*command, "--policy", "policy.toml")
        assert outcome.code == 2
        starts = [line.partition(": ")[0] for line in outcome.lines]
        assert starts == ["policy.toml:2", "policy.toml:3"]

"""What ships must fit together: definitions, policy, commands, and the rules that hold for every file."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.config import decode_guest, encode_guest, guest_paths, parse_guest
from orchestrator.core.policy import Policy
from orchestrator.policy_file import SCHEMA, parse_policy, read_policy
from orchestrator.toml_tables import plain

ROOT = Path(__file__).parents[2]
DEFINITIONS = sorted(ROOT.glob("domains/*.toml"))
POLICIES = sorted(ROOT.glob("policies/*.toml"))
MOST_LINES = 320

RUNS_IN_LAB = ("lab", "run")
"""It passes on another command's output, so it has none of its own that could be JSON."""


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_a_shipped_definition_is_valid_and_names_only_what_is_built_beside_it(path: Path) -> None:
    guest = parse_guest(path.read_bytes(), path.name, directory=str(path.parent))
    assert guest.spec.name == path.stem
    assert decode_guest(encode_guest(guest.spec)) == guest.spec
    assert guest_paths(guest.spec)
    for _, needed in guest_paths(guest.spec):
        assert Path(needed).parent == ROOT / "domains" / "build"


def test_there_is_a_guest_of_each_architecture() -> None:
    shipped = {parse_guest(path.read_bytes(), path.name, directory="/").spec.architecture for path in DEFINITIONS}
    assert shipped == {"i386", "x86_64", "armv7l", "aarch64"}


def test_the_default_policy_says_what_holds_without_one() -> None:
    text = (ROOT / "policies" / "default.toml").read_bytes()
    assert parse_policy(text, "default.toml") == Policy()
    every = {key: value for key, value in plain(Policy(), SCHEMA).items() if value not in ({}, [])}
    every |= {"total": {}, "ceilings": {}}
    assert tomllib.loads(text.decode()) == every, "every key that has a value is shown in it"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_shipped_policy_is_valid(path: Path) -> None:
    read_policy(path.name, lambda name: (ROOT / "policies" / name).read_bytes())


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield the words and the options of a command, or of each command in a group."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, {option for parameter in command.params for option in parameter.opts}
    else:
        for name, each in below.items():
            yield from commands(each, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_speaks_json(path: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, [*path, "--help"])
    assert told.exit_code == 0
    assert told.output.startswith("Usage: ")
    assert ("--json" in COMMANDS[path]) is (path != RUNS_IN_LAB)


@pytest.mark.parametrize("group", [(), ("audit",), ("host",), ("lab",), ("policy",)], ids=" ".join)
def test_every_group_explains_itself(group: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, [*group, "--help"])
    assert told.exit_code == 0
    for path in COMMANDS:
        if path[: len(group)] == group:
            assert f"  {path[len(group)]} " in told.output


def shipped() -> list[Path]:
    """Return the files that the project consists of, committed or about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_is_too_long_to_be_read() -> None:
    lengths = {path: len(path.read_bytes().splitlines()) for path in (ROOT / "orchestrator").rglob("*.py")}
    assert {path.name: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_no_file_speaks_of_the_machine_it_was_written_on_or_of_a_package_index() -> None:
    hosts = [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("crates", "io"), ("docker", "io")]
    words = "|".join(
        [r"(?<![\w/.-])/wo" + "rk/", *(rf"{name}\.{end}" for name, end in hosts), "TO" + "DO", "FIX" + "ME"]
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in shipped()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if (match := re.search(words, line))
    ]
    assert found == []

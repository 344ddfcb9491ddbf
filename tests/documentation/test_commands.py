"""Every command that the documentation shows works, in its order: those that run guests in the lab, the others here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.documentation.commands import DOCUMENTS, ELSEWHERE, ROOT, Command, Where, commands, shown
from tests.documentation.shell import Ended, complaint, typed


def test_every_command_is_known_and_every_document_read() -> None:
    found = commands()
    unknown = [str(command) for command in found if command.where is None]
    assert unknown == [], "RULES in tests/documentation/commands.py has to say where these are run"
    assert {command.text for command in found if command.where is Where.ELSEWHERE} == set(ELSEWHERE)
    below = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/README.md") if "build" not in path.parts}
    assert {"README.md", *(path for path in below if not path.startswith("."))} == set(DOCUMENTS)


def test_a_command_that_nobody_has_thought_of_is_found() -> None:
    text = "```sh\norchestrator ps; rm -rf /   # no\norchestrator ps; orchestrator cores\nsh -c '\n  a; b'\n```\n"
    first, second, third = shown("x.md", text)
    assert (first.line, first.text, first.where) == (2, "orchestrator ps; rm -rf /", None)
    assert (second.line, second.where) == (3, Where.LAB)
    assert (third.line, third.text, third.where) == (4, "sh -c '\n  a; b'", None)


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    texts = ("A=7", 'test "$A" = 7', "false", "{ echo serving on it; exec sleep 60; } & sleep 1", "true &")
    wanted = [Command("x.md", number, text) for number, text in enumerate(texts)]
    ended = typed(wanted, tmp_path, made(tmp_path / "out"), os.environ)
    assert [each.code for each in ended] == [0, 0, 1, 0, 1]
    assert [each.command.text for each in ended if each.failed] == ["false", "true &"], "the last was never ready"


def test_the_commands_that_need_no_guests(tmp_path_factory: pytest.TempPathFactory) -> None:
    ended = typed_here(tmp_path_factory.mktemp("doc"), lambda command: command.where is Where.HERE)
    assert complaint(ended) == ""


def test_the_commands_that_a_daemon_answers(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("doc")
    socket = base / "socket"
    with subprocess.Popen([sys.executable, "-m", "tests.documentation.daemon", str(socket)], cwd=ROOT) as daemon:
        try:
            while not socket.exists():
                assert daemon.poll() is None
                time.sleep(0.1)
            ended = typed_here(base, lambda command: command.needs_only_a_daemon, ORCHESTRATOR_SOCKET=str(socket))
        finally:
            daemon.terminate()
    assert len(ended) > 20
    assert complaint(ended) == ""


def typed_here(base: Path, wanted: Callable[[Command], bool], **variables: str) -> list[Ended]:
    """Type commands of all documents, and those that prepare for others; sockets go below `base`: a short path."""
    work = made(base / "work")
    for name in (".venv", "domains", "policies"):
        (work / name).symlink_to(ROOT / name)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(base),
        "ORCHESTRATOR_RUNTIME_DIR": str(base / "r"),
        "ORCHESTRATOR_STATE_DIR": str(base / "s"),
        **variables,
    }
    chosen = [command for command in commands() if command.where is Where.BOTH or wanted(command)]
    shown = (
        replace(command, text=command.text.replace("/run/orchestrator/api/socket", str(base / "socket")))
        for command in chosen
    )
    return typed(list(shown), work, made(base / "out"), environment)


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory

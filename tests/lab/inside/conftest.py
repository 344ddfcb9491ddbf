"""The fixture that starts guests for the tests in the lab."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.lab.inside.looking import ORCHESTRATOR, ROOT, emulators, process


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `orchestrator run` in the background; whatever is left at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [ORCHESTRATOR, "run", *arguments]
        runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(runner)
        return runner

    yield start
    for runner in started:
        if runner.poll() is None:
            runner.terminate()
        runner.communicate(timeout=120)
    if emulators():
        process("stop", "--all")

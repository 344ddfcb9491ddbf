"""The fixture that starts guests for the tests in the lab."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.lab.inside.looking import ORCHESTRATOR, ROOT, orchestrator


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `orchestrator run` in the background; whatever is left at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [ORCHESTRATOR, "run", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=120)
    orchestrator("stop", "--all")

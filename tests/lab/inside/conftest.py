"""The fixtures that start guests for the tests in the lab."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.lab.inside.crowd import Crowd, started
from tests.lab.inside.looking import ORCHESTRATOR, ROOT, emulators, process
from tests.lab.inside.servers import Servers


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `orchestrator run` in the background; whatever is left at the end is ended."""
    runners: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [ORCHESTRATOR, "run", *arguments]
        runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        if runner.poll() is None:
            runner.terminate()
        runner.communicate(timeout=120)
    if emulators():
        process("stop", "--all")


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Twenty guests under a daemon, watched from outside, for all tests that need any: to start them takes minutes."""
    directory = tmp_path_factory.mktemp("crowd")
    servers = Servers(directory)
    try:
        with started(servers, directory) as made:
            yield made
    finally:
        servers.clear()

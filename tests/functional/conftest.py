"""The fixture of all tests that call the program, and what goes on beside all of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest

from tests.functional.program import GUEST, Program

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    found = Program(tmp_path_factory.mktemp("cli"))  # a short path: sockets go below it
    found.write("payload.elf", b"\x7fELF")
    found.write("guest.toml", GUEST)
    found.write("none.toml", '[cores]\nreserved = "2-65535"\n')
    return found


@pytest.fixture(scope="session", autouse=True)
def cron_side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Popen[str] | None]:
    """Begin what waits for cron's whole minutes before the first test, if its own test is to come."""
    if os.geteuid() != 0 or not any(item.path.name == "test_policy_cron.py" for item in request.session.items):
        yield None
        return
    command = [sys.executable, "-m", "tests.functional.cron_side", str(tmp_path_factory.mktemp("cron"))]
    with Popen(command, cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True) as process:
        yield process
        process.send_signal(signal.SIGINT)  # which it ends well by, if it has not yet

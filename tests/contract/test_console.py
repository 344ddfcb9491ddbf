"""The console, on a socket that plays the guest; each console is a process of its own, as for its user."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ATTACH = """
import sys
from pathlib import Path
from orchestrator.errors import OrchestratorError
from orchestrator.host.console import attach
try:
    attach(Path(sys.argv[1]))
except OrchestratorError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
LIMIT = 30.0


def console(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", ATTACH, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[socket.socket]:
    """Return a listening serial port; QEMU too lets several connect and serves the first."""
    with socket.socket(socket.AF_UNIX) as port:
        port.bind(str(tmp_path / "serial.sock"))
        port.listen()
        port.settimeout(LIMIT)
        yield port


def test_what_the_guest_says_comes_out_and_what_is_typed_goes_in(tmp_path: Path, guest: socket.socket) -> None:
    with console(tmp_path / "serial.sock") as attached:
        served, _ = guest.accept()
        with served:
            served.sendall(b"login: \xff")
            assert attached.stdout is not None
            assert attached.stdout.read(8) == b"login: \xff"
            assert attached.stdin is not None
            attached.stdin.write(b"root\x1dnever sent")
            attached.stdin.flush()
            assert served.recv(100) == b"root"
            assert attached.wait(LIMIT) == 0
            assert served.recv(100) == b""


def test_it_ends_with_the_guest(tmp_path: Path, guest: socket.socket) -> None:
    with console(tmp_path / "serial.sock") as attached:
        guest.accept()[0].close()
        assert attached.wait(LIMIT) == 0


def test_it_ends_with_its_input(tmp_path: Path, guest: socket.socket) -> None:
    with console(tmp_path / "serial.sock") as attached:
        served, _ = guest.accept()
        with served:
            out, _ = attached.communicate(b"typed", LIMIT)
            assert (attached.returncode, out) == (0, b"")
            assert served.recv(100) == b"typed"


def test_a_second_console_is_turned_away_at_once(tmp_path: Path, guest: socket.socket) -> None:
    with console(tmp_path / "serial.sock") as first:
        served, _ = guest.accept()
        with served, console(tmp_path / "serial.sock") as second:
            _, told = second.communicate(b"", LIMIT)
            assert second.returncode == 1
            assert told.decode() == f"{tmp_path}: another console is attached to this guest\n"
        first.communicate(b"", LIMIT)
        assert first.returncode == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("serial.sock", "no guest listens there; `orchestrator ps` shows which run"),
        ("nowhere/serial.sock", "no guest has run here: No such file or directory"),
    ],
)
def test_where_no_guest_listens_there_is_no_console(tmp_path: Path, path: str, reason: str) -> None:
    with console(tmp_path / path) as attached:
        _, told = attached.communicate(b"", LIMIT)
        assert attached.returncode == 2
        assert told.decode().endswith(f": {reason}\n")

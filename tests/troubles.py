"""What goes wrong on a host while the guard is asked to act: what its bench has, and what only tests need."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import HostError
from orchestrator.wiring import guard_troubles
from orchestrator.wiring.guard_troubles import full, spinning, stopped

FORKS = """
import os, sys
sys.stdin.readline()
try: os.fork()
except OSError as error: print(error.errno, flush=True)
sys.stdin.readline()
"""

__all__ = ["frozen", "full", "no_forks", "spinning", "stopped"]


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Have the file system that is mounted here answer to no write."""
    subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


@contextmanager
def no_forks(*pids: int) -> Iterator[None]:
    """Let no process or thread be made by these processes, which is seen by one more that tries."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as tries:
        assert tries.stdin is not None
        assert tries.stdout is not None
        try:
            with guard_troubles.no_forks(*pids, tries.pid):
                tries.stdin.write("go\n")
                assert tries.stdout.readline().strip() == str(errno.EAGAIN)
                yield  # it stays: with one fewer there would be room for one
        except HostError as error:
            pytest.skip(str(error))
        finally:
            tries.kill()

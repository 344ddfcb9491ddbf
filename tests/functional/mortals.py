"""Schedulers that are killed, as tests use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def folders_in(directory: Path) -> dict[str, str]:
    """Return the variables that have a scheduler keep everything in this directory."""
    return {
        "ORCHESTRATOR_RUNTIME_DIR": str(directory / "run"),
        "ORCHESTRATOR_STATE_DIR": str(directory / "state"),
        "XDG_CACHE_HOME": str(directory / "cache"),
    }


class Mortals:
    """Schedulers that are killed, see `mortal`; `within` is a command that runs the one that is given to it."""

    def __init__(self, policy: Path, variables: Mapping[str, str], within: Sequence[str] = ()) -> None:
        self._server = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.functional.mortal", str(policy)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "LIBVIRT_LOG_OUTPUTS": "3:file:/dev/null", **variables},
        )
        assert self.told() == "ready"

    @property
    def pid(self) -> int:
        """Return the process that forks them."""
        return self._server.pid

    def begin(self, *definitions: str) -> Any:
        """Start a scheduler; return what it found when it has taken over what runs, and has started these."""
        self._say(" ".join(["fork", *definitions]))
        return self.told()

    def go(self, found: Any) -> None:
        """Have it let turns be taken."""
        os.kill(found["pid"], signal.SIGUSR1)

    def told(self) -> Any:
        """Wait for what is told next."""
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())

    def kill(self, found: Any) -> None:
        """Kill it, and return when it is gone."""
        os.kill(found["pid"], signal.SIGKILL)
        assert self.told() == "gone"

    def clear(self) -> None:
        """End the one that is left."""
        self._server.kill()
        self._server.communicate()

    def _say(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()

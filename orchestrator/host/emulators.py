"""The QEMU programs of this host: what they say of themselves."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from orchestrator.core.model import Architecture
from orchestrator.core.xml.domain import Accelerator
from orchestrator.errors import HostError
from orchestrator.state_ports import EmulatorFacts

_VERSION = re.compile(r"version (\d+(?:\.\d+)*)")
_LIMIT = 30.0


class QemuPrograms:
    """Asks each program once; `program` and `accelerator` say which there is, and what executes its guests."""

    def __init__(
        self, program: Callable[[Architecture], str], accelerator: Callable[[Architecture], Accelerator]
    ) -> None:
        self._program = program
        self._accelerator = accelerator
        self._known: dict[tuple[str, int], tuple[str, frozenset[str]]] = {}

    async def facts(self, architecture: Architecture) -> EmulatorFacts:
        """Return version and machine types as the program tells them; HostError if it does not."""
        return await asyncio.to_thread(self._facts, architecture)

    def _facts(self, architecture: Architecture) -> EmulatorFacts:
        program = self._program(architecture)
        try:
            key = program, Path(program).stat().st_mtime_ns  # an upgrade is noticed
        except OSError as error:
            raise HostError(f"{program}: {error.strerror}; `orchestrator doctor` tells what installs it") from None
        if key not in self._known:
            self._known[key] = _version(program), _machines(program)
        return EmulatorFacts(program, *self._known[key], self._accelerator(architecture), _processor())


def _version(program: str) -> str:
    found = _VERSION.search(_ask(program, "--version"))
    if found is None:
        raise HostError(f"{program}: does not tell its version; reinstall it")
    return found[1]


def _machines(program: str) -> frozenset[str]:
    lines = _ask(program, "-machine", "help").splitlines()
    return frozenset(line.split()[0] for line in lines[1:] if line.strip())


def _ask(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True, timeout=_LIMIT)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{program}: cannot be asked what it is: {error}") from None
    return done.stdout


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "CPU part"):
            return value.strip()
    return "an unknown processor"

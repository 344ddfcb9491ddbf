"""Runs commands one after the other in one shell, as somebody would who types them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.documentation.commands import Command

READY = "serving on"
"""What a command says that goes on, once those after it may be typed."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed; None as its code if the shell did not come so far."""

    command: Command
    code: int | None
    printed: str

    @property
    def failed(self) -> bool:
        return self.code not in self.command.codes


def typed(
    commands: Sequence[Command],
    directory: Path,
    outputs: Path,
    environment: Mapping[str, str],
    before: str = "",
    limit: float = 600,
    shell: Sequence[str] = ("bash",),
) -> list[Ended]:
    """Type the commands in a directory, and return how each ended; what goes on is ended after the last of them.

    `outputs` is an empty directory, by the same path for `shell`, `before` what that is told first, `limit` a time
    in seconds.
    """
    codes = outputs / "codes"
    codes.touch()
    lines = [f"exec 9>>{shlex.quote(str(codes))}", before]
    for number, command in enumerate(commands):
        out = shlex.quote(str(outputs / str(number)))
        lines.append(f"{{\n{command.text}\n}} >{out} 2>&1 </dev/null 9>&-; echo {number} $? >&9")
        if command.stays:
            lines.append(f"while kill -0 $! 2>/dev/null && ! grep -q '{READY}' {out}; do sleep 0.2; done")
            lines.append(f"grep -q '{READY}' {out} || echo {number} 1 >&9")
    lines.append("for job in $(jobs -p); do kill $job; done; wait")
    done = subprocess.run(
        [*shell, "-c", "\n".join(lines)],
        cwd=directory,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert not done.stderr, done.stderr
    ended = {int(number): int(code) for number, code in map(str.split, codes.read_text().splitlines())}
    return [
        Ended(command, ended.get(number), text.read_text() if (text := outputs / str(number)).exists() else "")
        for number, command in enumerate(commands)
    ]


def complaint(ended: Sequence[Ended]) -> str:
    """Return what failed, with what it printed, for whoever reads the test's outcome."""
    return "\n".join(f"{each.command}\n  exit code {each.code}: {each.printed}" for each in ended if each.failed)

"""`python -m orchestrator.packaging DIR [PROGRAM]`: write what is installed beside the program into a directory.

That is share/ with manual pages and completions, and lib/ with what systemd reads, in which PROGRAM (an absolute path)
is what is started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import typer

from orchestrator.cli.main import app
from orchestrator.packaging.manual import PROGRAM, pages
from orchestrator.packaging.units import units

SHELLS = {"bash": PROGRAM, "zsh": f"_{PROGRAM}", "fish": f"{PROGRAM}.fish"}
"""What each shell wants its completion's file to be called."""


def texts(program: str) -> Iterator[tuple[str, str]]:
    """Yield paths and what is to be written there."""
    for name, text in pages(typer.main.get_command(app), version(PROGRAM)).items():
        yield f"share/man1/{name}", text
    for shell, name in SHELLS.items():
        yield f"share/{shell}/{name}", _completion(shell)
    for name, text in units(program).items():
        yield f"lib/{name}", text


def _completion(shell: str) -> str:
    environment = {**os.environ, "_ORCHESTRATOR_COMPLETE": f"source_{shell}"}
    command = Path(sys.executable).with_name(PROGRAM)
    done = subprocess.run([command], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip() + "\n"


if __name__ == "__main__":
    for path, text in texts(sys.argv[2] if len(sys.argv) > 2 else f"/usr/bin/{PROGRAM}"):
        file = Path(sys.argv[1]) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

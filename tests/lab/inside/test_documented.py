"""The commands of the documentation that need guests, in its order, with real guests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.documentation.commands import Where, commands
from tests.documentation.shell import complaint, typed
from tests.lab.inside.looking import ORCHESTRATOR, ROOT, emulators, eventually, process, says
from tests.lab.inside.quick import client

AS_TYPED = """\
orchestrator() {{
    case "$1 $2" in
    "lab run")
        while [ "$1" != -- ]; do shift; done
        shift
        "$@" ;;
    run* | serve*) {program} "$@" ;;
    *) /usr/bin/python3 -I -S {client} "$@" ;;
    esac
}}
"""
"""What the shell is told: here we are in the lab already, and what only asks need not be started each time."""


def test_the_commands_that_need_guests(tmp_path: Path) -> None:
    socket = Path("/run/quick")
    script = tmp_path / "client.py"
    script.write_text(client(socket))
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    chosen = [command for command in commands() if command.where in (Where.LAB, Where.BOTH)]
    with subprocess.Popen([sys.executable, "-m", "tests.lab.inside.quick", str(socket)], cwd=ROOT) as quick:
        try:
            eventually(socket.exists, "it listens")
            before = AS_TYPED.format(program=ORCHESTRATOR, client=script)
            ended = typed(chosen, ROOT, outputs, os.environ, before, limit=840)
        finally:
            quick.terminate()
            if emulators():
                process("stop", "--all")
    says(f"{len(ended)} commands of the documentation were typed")
    assert complaint(ended) == ""

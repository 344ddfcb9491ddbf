"""Processes that knock at the guard's door: at a console of the lab, and from everywhere else."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET = Path("/run/orchestrator/guard/socket")
_PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")

_ASK = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(60)
s.connect(sys.argv[1])
try:
    s.send(sys.argv[2].encode())
except OSError:
    pass
print(s.recv(65536).decode())
"""

_TAKE = """
import fcntl, os, sys, termios
console, uid, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
os.setsid()
if console:
    os.dup2(os.open(console, os.O_RDWR), 9, inheritable=True)
    fcntl.ioctl(9, termios.TIOCSCTTY, 0)
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
os.execvp(command[0], command)
"""


def asking(request: dict[str, Any]) -> list[str]:
    """Return a command that asks the guard for this, and prints its answer."""
    return [*_PYTHON, _ASK, str(SOCKET), json.dumps(request)]


def at(console: str, command: list[str], uid: int = 0) -> list[str]:
    """Return a command that becomes the leader of a session at this terminal, if any, and this user, then that one."""
    return [*_PYTHON, _TAKE, console, str(uid), *command]


@contextmanager
def pseudo_terminal() -> Iterator[str]:
    ours, theirs = pty.openpty()
    try:
        yield os.ttyname(theirs)
    finally:
        os.close(theirs)
        os.close(ours)


def through(name: str, command: list[str], directory: Path) -> list[str]:
    """Return what runs a command through a program of this name, which stays there meanwhile.

    Where there is no such program, a shell stands in for it: who is who is told by the name of what a process executes.
    """
    text = " ".join(f"'{word}'" for word in command)
    if name == "su":
        return ["su", "root", "-c", f"{text}; true"]
    if name == "sudo" and shutil.which(name):
        return ["sudo", *command]
    stand_in = directory / name
    shutil.copy("/bin/dash", stand_in)
    return [str(stand_in), "-c", f"{text}; true"]


def answer(command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found

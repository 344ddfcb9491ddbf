"""Who calls the guard: the process at the other end of the socket, and where it comes from, read from /proc."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.consoles import NO_LOGIN, Process, serves_remotely, terminal_name

_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
_MOST_ANCESTORS = 64
_SESSIONS = Path("/run/systemd/sessions")


@dataclass(frozen=True, slots=True)
class Caller:
    """A process that asks: itself and where it comes from, up to the first process; `remote` as the login manager says.

    `uid` is whose it was as it connected; `line` is empty if it has ended since.
    """

    pid: int
    uid: int
    line: tuple[Process, ...]
    remote: bool

    def described(self) -> dict[str, object]:
        """Return it as a record of the journal has it."""
        asks = self.line[0] if self.line else None
        return {
            "pid": self.pid,
            "uid": self.uid,
            "began": None if asks is None else asks.began,
            "terminal": "" if asks is None else terminal_name(asks.terminal),
            "login": None if asks is None or asks.login == NO_LOGIN else asks.login,
            "through": [each.program for each in self.line],
        }


def credentials(connection: socket.socket) -> tuple[int, int]:
    """Return the pid and user of whoever connected, as they were then (SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def caller(pid: int, uid: int, connected: int) -> Caller:
    """Return who calls; `connected` is when, in clock ticks since the host began.

    A process that began later has the number of the one that connected, and is nobody.
    """
    line = _line(pid)
    if not line or line[0].began > connected or line[0].effective != uid:
        return Caller(pid, uid, (), remote=False)
    return Caller(pid, uid, line, _is_remote(pid))


def _line(pid: int) -> tuple[Process, ...]:
    """Return a process and all that it comes from; none if any of them changes while it is read."""
    line: list[Process] = []
    while pid and len(line) < _MOST_ANCESTORS:
        found = _process(pid)
        if found is None:
            return ()
        line.append(found)
        pid = found.parent
    again = _process(line[0].pid) if line else None
    return tuple(line) if again == (line[0] if line else None) else ()


def _process(pid: int) -> Process | None:
    root = Path(f"/proc/{pid}")
    try:
        fields = (root / "stat").read_bytes().rpartition(b")")[2].split()  # fields[0] is field 3 of proc(5)
        status = (root / "status").read_text("utf-8", "replace").splitlines()
        uids = next(line for line in status if line.startswith("Uid:")).split()
    except (OSError, StopIteration, IndexError):
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        began=int(fields[19]),
        uid=int(uids[1]),
        effective=int(uids[2]),
        program=_program(root),
        login=_login(root),
    )


def _program(root: Path) -> str:
    """Return what a process executes; empty if the kernel does not say."""
    try:
        path = os.readlink(root / "exe")  # noqa: PTH115 (a memory file has no path)
    except OSError:
        return ""
    return path.removesuffix(" (deleted)").rpartition("/")[2]


def _login(root: Path) -> int:
    try:
        return int((root / "loginuid").read_text())
    except (OSError, ValueError):
        return NO_LOGIN  # a kernel without audit


def _is_remote(pid: int) -> bool:
    """Tell whether a process is in the scope of a session that came over a network, as systemd-logind has noted it.

    Where no session was noted it may still be in the group of the service that let it in.
    """
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
    except OSError:
        return True
    if serves_remotely(groups):
        return True
    for part in groups.replace("\n", "/").split("/"):
        if part.startswith("session-") and part.endswith(".scope"):
            number = part.removeprefix("session-").removesuffix(".scope")
            try:
                noted = (_SESSIONS / number).read_text("utf-8", "replace").splitlines()
            except OSError:
                continue
            if "REMOTE=1" in noted:
                return True
    return False

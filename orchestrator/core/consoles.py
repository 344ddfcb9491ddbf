"""Who stands at a console of this machine: judged from what the kernel says of a process and of those it comes from.

Nothing that a process says of itself is asked, its environment least of all. Who is root anywhere can become anything
in the end; this keeps out whoever has not come in by the console, and the journal keeps what was refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_LOGIN = 2**32 - 1
"""The login uid of a process that comes from no login (proc(5), loginuid)."""

_REMOTE = frozenset(
    (
        "sshd",
        "sshd-session",
        "sshd-auth",
        "dropbear",
        "in.telnetd",
        "telnetd",
        "mosh-server",
        "xrdp",
        "ttyd",
        "cockpit-bridge",
    )
)
_REMOTE_SERVICES = _REMOTE | {"ssh", "telnet", "cockpit", "xrdp-sesman"}
_OTHERS_RIGHTS = frozenset(("su", "sudo", "doas", "pkexec", "runuser", "machinectl", "run0"))
_TTY, _HVC, _PTS = 4, 229, range(136, 144)  # major numbers: devices.txt of the kernel
_FIRST_SERIAL = 64  # of major 4: 1 to 63 are tty1 to tty63


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What the kernel says of a process: `terminal` as in proc(5), `program` what it executes, without its folder.

    `began` is in clock ticks since the host began; with the pid it names one process of this boot.
    """

    pid: int
    parent: int
    session: int
    terminal: int
    began: int
    uid: int
    effective: int
    program: str
    login: int = NO_LOGIN


def serves_remotely(groups: str) -> bool:
    """Tell whether a process is in the control group of a service that lets people in from elsewhere.

    `groups` is its ``/proc/PID/cgroup``. Who leaves his session and his ancestors behind stays where they were put.
    """
    services = (part.removesuffix(".service") for part in groups.replace("\n", "/").split("/") if ".service" in part)
    return any(service.partition("@")[0] in _REMOTE_SERVICES for service in services)


def terminal_name(terminal: int) -> str:
    """Return what a controlling terminal is called below /dev, as far as it is known; empty if there is none."""
    major, minor = terminal >> 8 & 0xFFF, (terminal & 0xFF) | (terminal >> 12 & 0xFFF00)
    if not terminal:
        return ""
    if major in _PTS:
        return f"pts/{minor + 256 * (major - _PTS.start)}"
    return _console(major, minor) or f"device {major}:{minor}"


def why_not_local(line: Sequence[Process], *, remote: bool, consoles: Sequence[str] = ()) -> str:
    """Say why who asks does not stand at a console of this machine, and may not have an emergency act; empty if he may.

    `line` has the process that asks, its parent, and so on to the first process. `remote` says whether the login
    session that it belongs to came over a network, as the login manager has noted it. `consoles` are the only
    ones that will do, if there are any; ``tty*`` stands for all that begin so.
    """
    if not line:
        return "the process that asks has gone"
    asks = line[0]
    if (asks.uid, asks.effective) != (0, 0):
        return f"user {asks.uid if asks.uid else asks.effective} is not root"
    return (
        _why_no_console(asks, consoles)
        or _why_not_roots(line)
        or ("its login session came over a network" if remote else "")
        or (f"its login was user {asks.login}'s" if asks.login not in (0, NO_LOGIN) else "")
    )


def _why_no_console(asks: Process, consoles: Sequence[str]) -> str:
    name = terminal_name(asks.terminal)
    if not name:
        return "it has no controlling terminal"
    if not _console(asks.terminal >> 8 & 0xFFF, (asks.terminal & 0xFF) | (asks.terminal >> 12 & 0xFFF00)):
        return f"its controlling terminal is {name}, which is no console of this machine"
    if consoles and not any(_fits(name, pattern) for pattern in consoles):
        return f"the policy does not name {name} among the consoles for this ({', '.join(consoles)})"
    return ""


def _why_not_roots(line: Sequence[Process]) -> str:
    """Follow where a process comes from: its session began at this terminal, and root alone was there all the way."""
    asks, last = line[0], line[-1]
    found = next(filter(None, map(_why_no_ancestor, line)), "")
    if found:
        return found
    if last.parent:
        return f"where it comes from cannot be followed further than to process {last.pid}"
    leader = next((each for each in line if each.pid == asks.session), None)
    if leader is None or leader.terminal != asks.terminal:
        return "who began its session is no ancestor of it at this terminal"
    return ""


def _why_no_ancestor(each: Process) -> str:
    if each.program in _REMOTE:
        return f"it comes from {each.program} ({each.pid}), from elsewhere"
    if each.program in _OTHERS_RIGHTS:
        return f"it comes through {each.program} ({each.pid}); log in as root at the console itself"
    if not each.program and each.parent:  # what the first process is does not matter
        return f"it comes from process {each.pid}, and what that executes cannot be read"
    return f"it comes from process {each.pid} of user {each.uid}" if each.uid else ""


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _console(major: int, minor: int) -> str:
    if major == _HVC:
        return f"hvc{minor}"
    if major != _TTY or not minor:
        return ""
    return f"ttyS{minor - _FIRST_SERIAL}" if minor >= _FIRST_SERIAL else f"tty{minor}"

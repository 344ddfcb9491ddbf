"""Ways to the guard that are none: real programs, where they are installed, and what stands in for them elsewhere."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.at_console import answer, asking, at, records

NOBODY = 65534
NO_CONSOLE = "which is no console of this machine"
PATIENCE = 60.0


@contextmanager
def pseudo_terminal() -> Iterator[str]:
    ours, theirs = pty.openpty()
    try:
        yield os.ttyname(theirs)
    finally:
        os.close(theirs)
        os.close(ours)


@dataclass(frozen=True)
class Way:
    """Who comes by it, how he asks, and why he is refused."""

    who: str
    ask: Callable[[], dict[str, Any]]
    why: str


TRY = {"act": "kill", "guests": ["nobody"], "reason": "a try"}


def check_who_is_obeyed(
    runtime: Path,
    state: Path,
    console: str,
    directory: Path,
    through: Callable[[list[str]], AbstractContextManager[Sequence[Way]]] | None = None,
    program: list[str] | None = None,
) -> None:
    """Root at a console, and nobody from anywhere else; each try is recorded.

    `program` is a command that asks to kill a guest `nobody`, `through` gives more ways for it.
    """
    asks = asking(runtime, TRY)
    mine = program or asks
    # Another user may not even read where the program is.
    another = Way("another user", lambda: answer(at(console, asks, uid=NOBODY)), f"user {NOBODY} is not root")
    with through(mine) if through else contextlib.nullcontext(()) as more:
        for way in (*simple_ways(mine, console, directory), another, *more):
            before = len(records(state))
            reply = way.ask()
            assert reply["code"] == 3, (way.who, reply)
            assert way.why in reply["lines"][0], (way.who, reply)
            (record,) = records(state, more_than=before)[before:]
            assert (record["kind"], way.why in record["body"]["why"]) == ("refused", True), (way.who, record)
    obeyed = answer(at(console, mine))
    assert (obeyed["code"], "no guest of this host is called nobody" in obeyed["lines"][0]) == (2, True), obeyed


def simple_ways(mine: list[str], console: str, directory: Path) -> list[Way]:
    """Return the ways for which nothing need be installed; a shell of its name stands in for sshd."""

    def in_pty(environment: dict[str, str] | None = None) -> dict[str, Any]:
        with pseudo_terminal() as terminal:
            return answer(at(terminal, mine), environment)

    forged = {**os.environ, "TTY": "/dev/tty1", "SSH_TTY": "", "XDG_SEAT": "seat0", "XDG_VTNR": "1"}
    sshd = shutil.copy("/bin/dash", directory / "sshd")  # who is who is told by the name of what a process executes
    return [
        Way("a pty", in_pty, NO_CONSOLE),
        Way("a forged environment", lambda: in_pty(forged), NO_CONSOLE),
        Way("no terminal", lambda: answer(at("", mine)), "no controlling terminal"),
        Way("script", lambda: answer(at(console, ["script", "-qefc", words(mine), "/dev/null"])), NO_CONSOLE),
        Way("su", lambda: answer(at(console, ["su", "root", "-c", f"{words(mine)}; true"])), "it comes through su ("),
        Way("sshd", lambda: answer(at(console, [str(sshd), "-c", f"{words(mine)}; true"])), "it comes from sshd ("),
    ]


@contextmanager
def real_ways(mine: list[str], console: str, directory: Path) -> Iterator[list[Way]]:
    """Give the ways through programs that are installed: sudo, and servers for ssh, which serve meanwhile."""
    with ExitStack() as servers:
        ways = list(sudo_ways(mine, console, directory)) if shutil.which("sudo") else []
        for begin in (dropbear, open_ssh):
            client = servers.enter_context(begin(directory))
            if client is not None:
                ways += ssh_ways(mine, console, client)
        yield ways


def sudo_ways(mine: list[str], console: str, directory: Path) -> Iterator[Way]:
    """Return ways through sudo: as it is, and without a pty of its own, root's and another user's."""
    rules = directory / "sudoers"
    rules.write_text("Defaults !use_pty\nALL ALL=(ALL) NOPASSWD: ALL\n")
    rules.chmod(0o440)
    bind = f"mount --bind {rules} /etc/sudoers && exec"
    as_nobody = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"

    def by_rules(command: str) -> dict[str, Any]:
        return answer(at(console, ["unshare", "--mount", "sh", "-c", f"{bind} {command}"]))

    sudo = f"sudo -n {words(mine)}"
    through = "it comes through sudo ("
    yield Way("sudo with a pty", lambda: answer(at(console, ["sudo", "-n", *mine])), "")
    yield Way("root's sudo", lambda: by_rules(sudo), through)
    yield Way("another user's sudo", lambda: by_rules(f"{as_nobody} {sudo}"), through)


def ssh_ways(mine: list[str], console: str, client: Client) -> list[Way]:
    """Return ways over ssh: with a terminal, without, and by a console that is taken from within."""
    return [
        Way(f"{client.server}, a terminal", lambda: answer(client.command(words(mine), terminal=True)), NO_CONSOLE),
        Way(f"{client.server}, none", lambda: answer(client.command(words(mine))), "no controlling terminal"),
        Way(
            f"{client.server}, a console",
            lambda: answer(client.command(f"{words(at(console, mine))}; true")),
            f"it comes from {client.server} (",
        ),
    ]


@dataclass(frozen=True)
class Client:
    """How root comes over ssh to the server of this name; `terminal` asks for one there."""

    server: str
    plain: tuple[str, ...]
    terminal: str

    def command(self, what: str, *, terminal: bool = False) -> list[str]:
        if not terminal:
            return [*self.plain, "root@127.0.0.1", what]
        # Some clients want a terminal here to ask for one there.
        return ["script", "-qefc", words([*self.plain, self.terminal, "root@127.0.0.1", what]), "/dev/null"]


@contextmanager
def dropbear(directory: Path) -> Iterator[Client | None]:
    """Have dropbear serve; None if that is not installed."""
    if not (shutil.which("dropbear") and shutil.which("dbclient")):
        yield None
        return
    host, mine, port = directory / "db-host", directory / "db-key", free_port()
    for key in (host, mine):
        key.unlink(missing_ok=True)
        made = run("dropbearkey", "-t", "ed25519", "-f", str(key))
    public = next(line for line in made.splitlines() if line.startswith("ssh-ed25519 "))
    serve = ["dropbear", "-F", "-E", "-s", "-p", f"127.0.0.1:{port}", "-r", str(host), "-P", str(directory / "db-pid")]
    with serving(serve, public, port, directory):
        yield Client("dropbear", ("dbclient", "-y", "-y", "-i", str(mine), "-p", str(port)), "-t")


@contextmanager
def open_ssh(directory: Path) -> Iterator[Client | None]:
    """Have OpenSSH serve; None if that is not installed."""
    sshd = shutil.which("sshd", path="/usr/sbin")
    if not (sshd and shutil.which("ssh")):
        yield None
        return
    host, mine, port = directory / "host", directory / "key", free_port()
    for key in (host, mine):
        key.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    rules = directory / "sshd_config"
    rules.write_text(f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nPidFile none\nUsePAM no\n")
    options = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={os.devnull}", "BatchMode=yes", "LogLevel=ERROR")
    client = (
        "ssh",
        "-F",
        "none",
        "-i",
        str(mine),
        "-p",
        str(port),
        *(part for each in options for part in ("-o", each)),
    )
    with serving([sshd, "-D", "-e", "-f", str(rules)], mine.with_suffix(".pub").read_text(), port, directory):
        yield Client("sshd", client, "-tt")


@contextmanager
def serving(command: list[str], public: str, port: int, directory: Path) -> Iterator[None]:
    """Run an ssh server that lets root in by this key; root's own keys are hidden from it by a mount of its own."""
    prepare = (
        "mkdir -p /root/.ssh && mount -t tmpfs -o mode=700 keys /root/.ssh && umask 077 && "
        'printf "%s\\n" "$1" > /root/.ssh/authorized_keys && shift && exec "$@"'
    )
    privileges = Path("/run/sshd")  # where OpenSSH has who is not yet known
    made = not privileges.exists()
    privileges.mkdir(exist_ok=True)
    with (directory / f"{Path(command[0]).name}.log").open("w") as log:
        server = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", prepare, "sh", public, *command], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        until = time.monotonic() + PATIENCE
        while not listens(port):
            assert server.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE)
        if made:
            privileges.rmdir()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def words(command: list[str]) -> str:
    return shlex.join(command)

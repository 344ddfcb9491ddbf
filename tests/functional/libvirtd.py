"""libvirt's own daemon with real guests, as tests use it.

The daemon is one of the test's own, in a mount namespace that hides the system's files of libvirt; its QEMUs run as
the user that libvirt gives them. Guests have the pool, or core 1 on a host that has none, see `mortal`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.functional.mortals import ROOT, Mortals, folders_in
from tests.functional.test_killed_schedulers import computing, emulators

ARCHITECTURES = ("aarch64", "armv7l")
PATIENCE = 60.0

WITHIN = """\
set -e
for directory in /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=755 libvirt "$directory"
done
exec "$@"
"""

POLICY = """
[hypervisor]
connect = "qemu:///system"
accelerator = "tcg"

[rotation]
slice = "100 ms"
minimum_run = "50 ms"
patience = "1 s"
confirm = "30 s"
"""

DEFINITION = """
name = "{architecture}"
architecture = "{architecture}"
vcpus = 1
memory = "64 MiB"
[boot]
payload = "{payload}"
"""


class Daemons:
    """libvirt's daemons in the mount namespace of another process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def start(self, name: str) -> None:
        """Start one; it listens when this returns."""
        self._inside(name, "--daemon", "--pid-file", f"/run/libvirt/{name}.pid")

    def kill(self, name: str) -> None:
        """Kill one with no chance to say anything."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process(name), signal.SIGKILL)

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Have one stand still meanwhile."""
        os.kill(self._process(name), signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process(name), signal.SIGCONT)

    def domains(self) -> list[str]:
        """Return the names of all domains that libvirt knows, as its own client says."""
        return sorted(self._inside("virsh", "--connect", "qemu:///system", "list", "--all", "--name").split())

    @property
    def entry(self) -> tuple[str, ...]:
        """What a command is put behind that is to see these daemons' files."""
        return ("nsenter", f"--mount=/proc/{self._pid}/ns/mnt")

    def _process(self, name: str) -> int:
        return int(Path(f"/proc/{self._pid}/root/run/libvirt/{name}.pid").read_text())

    def _inside(self, *command: str) -> str:
        return subprocess.run([*self.entry, *command], check=True, text=True, stdout=subprocess.PIPE, cwd="/").stdout


class Stage:
    """Schedulers, the libvirt that they use, and guests of theirs."""

    def __init__(self, mortals: Mortals, daemons: Daemons, directory: Path) -> None:
        self.mortals = mortals
        self.daemons = daemons
        self.directory = directory

    def guests(self) -> dict[str, int]:
        """Return the pid of each guest's QEMU."""
        return emulators(self.directory)

    def turns(self) -> None:
        """Return when each guest has computed."""
        waited, limit = set(self.guests()), time.monotonic() + PATIENCE
        while waited:
            assert time.monotonic() < limit, f"got no turn: {waited}"
            waited -= computing(self.guests())


@contextmanager
def staged(state_size: str = "") -> Iterator[Stage]:
    """Give libvirt's daemons; with a size, the state is on a disk of its own, so large."""
    directory = Path(tempfile.mkdtemp(prefix="o-", dir="/dev/shm"))
    directory.chmod(0o711)
    if state_size:
        (directory / "state").mkdir()
        options = f"size={state_size},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "state", str(directory / "state")], check=True)
    policy = directory / "policy.toml"
    policy.write_text(POLICY)
    folders = folders_in(directory)
    made = Mortals(policy, folders, within=("unshare", "--mount", "sh", "-c", WITHIN, "sh"))
    daemons = Daemons(made.pid)
    try:
        for name in ("virtlogd", "libvirtd"):
            daemons.start(name)
        yield Stage(made, daemons, directory)
    finally:
        for pid in emulators(directory).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in ("libvirtd", "virtlogd"):
            daemons.kill(name)
        made.clear()
        if state_size:
            subprocess.run(["umount", "-l", str(directory / "state")], check=True)
        shutil.rmtree(directory)


def definitions(directory: Path) -> list[str]:
    """Write definitions of guests whose payloads libvirt's user can read."""
    paths = []
    for architecture in ARCHITECTURES:
        payload = shutil.copy(ROOT / f"domains/build/heartbeat-{architecture}.elf", directory)
        paths.append(directory / f"{architecture}.toml")
        paths[-1].write_text(DEFINITION.format(architecture=architecture, payload=payload))
    return [str(path) for path in paths]


def until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.05)


def told(stage: Stage, what: str) -> Any:
    """Wait for what is told next, which is to be about this."""
    line = stage.mortals.told()
    assert line["what"] == what, line
    return line

"""What a QEMU that has been taken over could do, tried inside one that runs a guest: each of these is refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.host import landlock
from tests.users import ALICE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="any other user's QEMU has no more than his own rights")

ROOT = Path(__file__).parents[2]

# The numbers of x86-64, from <asm/unistd_64.h>: a filter looks at those, whatever function makes the call.
REFUSED = {
    "read a file of another user": ('syscall(257, -100, "{secret}", 0)', errno.EACCES),
    "write a file of another user": ('syscall(257, -100, "{secret}", 1)', errno.EACCES),
    "make a file where another user keeps his": ('syscall(257, -100, "{home}/new", 65, 384)', errno.EACCES),
    "open a raw socket": ("syscall(41, 2, 3, 1)", errno.EPERM),
    "open a packet socket": ("syscall(41, 17, 3, 768)", errno.EPERM),
    "trace process 1": ("syscall(101, 16, 1, 0, 0)", errno.EPERM),
    "read the memory of process 1": ('syscall(257, -100, "/proc/1/mem", 0)', errno.EACCES),
    "go elsewhere (affinity)": ("syscall(203, 0, 8, (long*)$sp)", errno.EPERM),
    "become real-time": ("syscall(144, 0, 1, (int*)$sp)", errno.EPERM),
    "give a file away": ('syscall(92, "{base}/roots", 1000, 1000)', errno.EPERM),
    "give the host another name": ('syscall(170, "evil", 4)', errno.EPERM),
}
"""What is tried, and what the kernel answers, by capabilities, permissions and QEMU's own filter."""

ENCLOSED = {
    "read a file of root's": ('syscall(257, -100, "{base}/roots", 0)', errno.EACCES),
    "write a file of root's": ('syscall(257, -100, "{base}/roots", 1)', errno.EACCES),
    "read the host's passwords": ('syscall(257, -100, "/etc/shadow", 0)', errno.EACCES),
    "change a setting of the kernel's": ('syscall(257, -100, "/proc/sys/kernel/hostname", 1)', errno.EACCES),
    "make a device": ('syscall(133, "{base}/device", 25008, 2049)', errno.EACCES),
    "open a device that is none of its guest's": ('syscall(257, -100, "/dev/kmsg", 0)', errno.EACCES),
    "read what another owner's guest has printed": (
        'syscall(257, -100, "{base}/guests/other/serial.log", 0)',
        errno.EACCES,
    ),
    "make a file beside another owner's guest's": (
        'syscall(257, -100, "{base}/guests/other/new", 65, 384)',
        errno.EACCES,
    ),
    "trace another owner's guest": ("syscall(101, 16, @OTHER@, 0, 0)", errno.EPERM),
    "read the memory of another owner's guest": ('syscall(257, -100, "/proc/@OTHER@/mem", 0)', errno.EACCES),
    "see what another owner's guest has open": ('syscall(257, -100, "/proc/@OTHER@/fd/0", 0)', errno.EACCES),
}
"""What else is refused where the kernel has Landlock, though root owns it, or another QEMU of root's is it."""

TCP = {
    "offer something to the network": (
        r'syscall(49, (int)socket(2, 1, 0), "\002\000\037\220\177\000\000\001\000\000\000\000\000\000\000\000", 16)',
        errno.EACCES,
    ),
    "connect to another host": (
        r'syscall(42, (int)socket(2, 1, 0), "\002\000\037\220\177\000\000\001\000\000\000\000\000\000\000\000", 16)',
        errno.EACCES,
    ),
}
"""What else, from Landlock's version 4 on (Linux 6.7), if the guest has no network of kind `user`: 127.0.0.1:8080."""

WITHIN = {"stop another owner's guest": ("syscall(62, @OTHER@, 19)", errno.EPERM)}
"""What else, from Landlock's version 6 on (Linux 6.12)."""

ALLOWED = {"read a file of its own guest's": 'syscall(257, -100, "{base}/guests/closed/serial.log", 0)'}
"""What must go on to work, or the others were refused for another reason."""

DEADLY = {
    "mount a file system": 'syscall(165, "none", "{base}", "tmpfs", 0, 0)',
    "start a program": "syscall(57)",
    "become another user": "syscall(105, 1000)",
}
"""What ends the process that tries it."""


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="box-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_each_of_these_is_refused(base: Path) -> None:
    home = base / "alice"
    home.mkdir(mode=0o700)
    (home / "secret").write_text("hers")
    (base / "roots").touch()
    for path in (home / "secret", home):
        os.chown(path, ALICE, ALICE)
        path.chmod(0o700)
    words = {"secret": str(home / "secret"), "home": str(home), "base": str(base)}
    since = {1: ENCLOSED, 4: TCP, 6: WITHIN}
    refused = dict(REFUSED)
    for version, more in since.items():
        refused |= more if landlock.version() >= version else {}
    attempts = {name: call for name, (call, _) in refused.items()} | ALLOWED
    batches = [{name: call.format(**words) for name, call in attempts.items()}]
    batches += [{name: call.format(**words)} for name, call in DEADLY.items()]
    command = [sys.executable, "-m", "tests.functional.sandbox_side", str(base), json.dumps(batches)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    judged = told.pop("judged")
    assert all(told.pop(name)[0] >= 0 for name in ALLOWED)
    expected = {name: [-1, number] for name, (_, number) in refused.items()} | dict.fromkeys(DEADLY, "SIGSYS")
    assert told == expected
    assert judged["capabilities"] == [True, "none; none can be had"]
    assert judged["seccomp"][0]
    assert judged["privileges"][0]
    # What is open still, which `doctor --guest` says: sockets of root's; ceilings are tested in the lab.
    assert [name for name, (closed, _) in judged.items() if not closed] == [
        *("user", *(() if landlock.version() else ("files",)), "namespaces", "memory", "threads", "disk speed"),
    ]

"""Landlock, in processes of its own since nobody gets out of it: what is allowed works, all else is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import HostError
from orchestrator.host import landlock
from orchestrator.host.landlock import ALL, DEVICE, READ, Access

TRIES = """
import os, socket, subprocess, sys
from pathlib import Path
from orchestrator.host import landlock
from orchestrator.host.landlock import ALL, DEVICE, PROGRAMS, READ
base = Path(sys.argv[1])
landlock.restrict({
    **{path: PROGRAMS for path in ("/usr", "/lib", "/lib64", "/bin", sys.prefix)}, "/proc": READ,
    str(base / "own"): ALL, str(base / "shown"): READ, str(base / "one"): DEVICE, str(base / "none"): ALL,
}, network=False)
def tried(what, act):
    try:
        act()
        print(what, "done", sep=": ")
    except OSError as error:
        print(what, error.strerror, sep=": ")
tried("make", lambda: (base / "own/new").write_text("x"))
tried("remove", lambda: (base / "own/new").unlink())
tried("execute", lambda: subprocess.run([base / "own/script"], check=True))
tried("show", lambda: (base / "shown/file").read_text())
tried("change", lambda: (base / "shown/file").write_text("x"))
tried("write one", lambda: os.write(os.open(base / "one", os.O_WRONLY), b"x"))
tried("read other", lambda: (base / "other").read_text())
tried("list", lambda: os.listdir(base))
def child():
    done = subprocess.run(["/usr/bin/cat", base / "other"], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.returncode, done.stderr.strip().rpartition(": ")[2])
tried("child", child)
tried("listen", lambda: socket.socket().bind(("127.0.0.1", 0)))
tried("memory", lambda: open(f"/proc/{os.getppid()}/mem").close())
"""


@pytest.mark.skipif(not landlock.version() or os.geteuid() != 0, reason="no Landlock here, or no user without rights")
def test_what_is_allowed_works_and_all_else_is_refused_to_children_too(tmp_path: Path) -> None:
    for name in ("own", "shown"):
        (tmp_path / name).mkdir()
    for name in ("shown/file", "one", "other", "own/script"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([sys.executable, "-c", TRIES, tmp_path], capture_output=True, text=True, check=True)
    told = dict(line.split(": ") for line in done.stdout.splitlines())
    assert told.pop("listen") == ("Permission denied" if landlock.version() >= 4 else "done")
    assert told == {
        **dict.fromkeys(("make", "remove", "show", "write one"), "done"),
        **dict.fromkeys(("execute", "change", "list", "memory", "read other", "child"), "Permission denied"),
    }
    assert (tmp_path / "other").read_text() == "#!/bin/sh\n", "and this process is as free as before"


def test_rules_for_one_path_are_one() -> None:
    rules = landlock.merged([("/a", READ), ("/b", DEVICE)], [("/a", Access.WRITE_FILE)])
    assert rules == {"/a": READ | Access.WRITE_FILE, "/b": DEVICE}
    assert not ALL & (Access.EXECUTE | Access.MAKE_BLOCK | Access.MAKE_CHAR)


@pytest.mark.skipif(landlock.version() > 0, reason="this kernel has it")
def test_a_kernel_without_it_says_so() -> None:
    with pytest.raises(HostError, match="no Landlock"):
        landlock.restrict({})

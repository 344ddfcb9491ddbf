"""`orchestrator guard` and `orchestrator admin` as processes: QEMUs are ended at a real console, whatever goes wrong.

The QEMUs run nothing, and something that only beats stands for the scheduler: this host has no pool. What the scheduler
makes of what the guard has done is in tests/unit/test_heeding.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wiring import journals
from tests.at_console import Guard, Killer, Shell, answer, asking, at, bare, check_who_is_obeyed, full, spinning

CONSOLES = ("/dev/tty11", "/dev/tty12")
BEATS = "import sys, time\nfrom pathlib import Path\nfrom orchestrator.host.heartbeat import Heart\n" + (
    "heart = Heart(Path(sys.argv[1]))\nwhile True:\n    heart.beat()\n    time.sleep(0.1)\n"
)
FORKS = "import os, sys\nsys.stdin.readline()\ntry: os.fork()\nexcept OSError as error: print(error.errno)\n"
NAMES = "plain", "stopped", "full", "spinning", "no-forks", "all-at-once"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a console")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A state folder on a small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "state", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def runtime(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:  # where others can come to, to be refused
        monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(disk))
        monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def guard(runtime: Path, tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path / "guard.log")
    try:
        found = console_answer(runtime)
        if found["code"] != 0:
            pytest.skip(f"from where these tests are run nobody is at a console: {found['lines'][0]}")
        yield made
    finally:
        made.end()


def console_answer(runtime: Path) -> dict[str, Any]:
    try:
        return answer(at(CONSOLES[1], asking(runtime, {"act": "status"})))
    except AssertionError as error:
        pytest.skip(f"there is no {CONSOLES[1]} here: {str(error)[-200:]}")


def test_nobody_is_obeyed_but_at_a_console(guard: Guard, runtime: Path, disk: Path, tmp_path: Path) -> None:
    assert guard.process.poll() is None
    check_who_is_obeyed(runtime, disk, CONSOLES[1], tmp_path)


@contextlib.contextmanager
def beating(runtime: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", BEATS, str(runtime / "heartbeat")])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def no_forks(*pids: int) -> Iterator[None]:
    """Let no process or thread be made by these processes, which is seen by one more that tries."""
    root = Path("/sys/fs/cgroup")
    legacy = root / "pids"
    group = (legacy if legacy.is_dir() else root) / f"orchestrator-guard-{os.getpid()}"
    group.mkdir()
    if not (group / "pids.max").exists():
        group.rmdir()
        pytest.skip("no pids controller here, by which forks can be forbidden")
    tries = subprocess.Popen(
        [sys.executable, "-S", "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    members = (*pids, tries.pid)
    before = {pid: own_group(pid, legacy=legacy.is_dir()) for pid in members}
    try:
        for pid in members:
            (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        assert tries.communicate("\n", 60)[0].strip() == str(errno.EAGAIN)
        (group / "pids.max").write_text((group / "pids.current").read_text())
        yield
    finally:
        (group / "pids.max").write_text("max")
        for pid in pids:
            (group.parent / before[pid] / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def own_group(pid: int, *, legacy: bool) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if ("pids" in controllers.split(",")) if legacy else number == "0":
            return path.lstrip("/")
    pytest.skip("no pids controller here, by which forks can be forbidden")


def test_a_guest_is_ended_whatever_goes_wrong_one_by_one_and_together(
    guard: Guard, runtime: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = max(os.sched_getaffinity(0))
    processes = {name: bare(name, number, core, runtime) for number, name in enumerate(NAMES)}
    shell = Shell(CONSOLES[0], dict(os.environ))
    try:
        with beating(runtime) as scheduler:
            guard.tells(f"(process {scheduler.pid}) is there")
            kill = Killer(shell, disk, processes)
            kill("plain")
            with stopped(scheduler):
                guard.tells(f"(process {scheduler.pid}) hangs: no heartbeat for ")
                kill("stopped")
            guard.tells("goes on, after ")
            with full(disk):
                kill("full")
            with spinning([core]):
                kill("spinning")
            with no_forks(guard.process.pid, shell.pid):
                kill("no-forks")
            with stopped(scheduler), full(disk), no_forks(guard.process.pid, shell.pid), spinning([core]):
                kill("all-at-once")
        (report,) = journals.verify_own()
        assert (report.name, report.is_whole, report.kept > 0) == ("guard", True, True)
    finally:
        shell.end()
        for process in processes.values():
            process.kill()
            process.wait()
    with capsys.disabled():
        took = ", ".join(f"{what} {milliseconds:.1f}" for what, milliseconds in kill.took.items())
        sys.stdout.write(f"\nfigure: guard: from the request to the guest's end, ms: {took}\n")

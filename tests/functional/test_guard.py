"""`orchestrator guard` and `orchestrator admin` as processes: QEMUs are ended at a real console, whatever goes wrong.

The QEMUs run nothing, and something that only beats stands for the scheduler: this host has no pool. What the scheduler
makes of what the guard has done is in tests/unit/test_heeding.py.
"""

from __future__ import annotations

import contextlib
import json
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
from orchestrator.wiring.guard_bench import CASES
from tests.at_console import ORCHESTRATOR, Guard, Killer, Shell, answer, asking, at, bare, records
from tests.from_elsewhere import Way, check_who_is_obeyed, real_ways
from tests.troubles import frozen, full, no_forks, spinning, stopped

CONSOLES = ("/dev/tty11", "/dev/tty12")
BEATS = "import sys, time\nfrom pathlib import Path\nfrom orchestrator.host.heartbeat import Heart\n" + (
    "heart = Heart(Path(sys.argv[1]))\nwhile True:\n    heart.beat()\n    time.sleep(0.1)\n"
)
SHOWN = """
name = "shown"
architecture = "i386"
vcpus = 1
memory = "32 MiB"
mode = "exclusive"
on_crash = "restart"
[boot]
payload = "{payload}"
"""
ROOT = Path(__file__).parents[2]
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


def test_nobody_is_obeyed_but_at_a_console(
    guard: Guard, runtime: Path, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.process.poll() is None
    folders = [f"ORCHESTRATOR_RUNTIME_DIR={runtime}", f"ORCHESTRATOR_STATE_DIR={disk}"]
    program = ["env", *folders, ORCHESTRATOR, "admin", "kill", "nobody", "--reason", "a try", "--json"]
    tried: list[str] = []

    @contextlib.contextmanager
    def through(mine: list[str]) -> Iterator[list[Way]]:
        with real_ways(mine, CONSOLES[1], tmp_path) as ways:
            tried.extend(way.who for way in ways)
            yield ways

    check_who_is_obeyed(runtime, disk, CONSOLES[1], tmp_path, through, program)
    with capsys.disabled():
        sys.stdout.write(f"\nrefused and recorded, through real programs: {'; '.join(tried)}\n")


@contextlib.contextmanager
def beating(runtime: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", BEATS, str(runtime / "heartbeat")])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


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
            with stopped(scheduler.pid):
                guard.tells(f"(process {scheduler.pid}) hangs: no heartbeat for ")
                kill("stopped")
            guard.tells("goes on, after ")
            with full(disk):
                kill("full")
            with spinning([core]):
                kill("spinning")
            with no_forks(guard.process.pid, shell.pid):
                kill("no-forks")
            with stopped(scheduler.pid), full(disk), no_forks(guard.process.pid, shell.pid), spinning([core]):
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


@pytest.fixture
def real_disk(tmp_path: Path) -> Iterator[Path]:
    """A state folder on a file system of its own, which can be frozen."""
    image, folder = tmp_path / "image", tmp_path / "real-disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr!r}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_guest_is_ended_while_the_disk_hangs_and_the_journal_has_it_afterwards(
    real_disk: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(real_disk))
    guard = Guard(tmp_path / "frozen.log")
    core = max(os.sched_getaffinity(0))
    processes = [bare(f"web-{number}", number, core, runtime) for number in (1, 2)]
    shell = None
    try:
        if (found := console_answer(runtime))["code"] != 0:
            pytest.skip(f"from where these tests are run nobody is at a console: {found['lines'][0]}")
        shell = Shell(CONSOLES[0], dict(os.environ))
        with frozen(real_disk):
            replies = [shell(f"kill web-{number} --reason frozen") for number in (1, 2)]
            assert [process.wait(30) for process in processes] == [-signal.SIGKILL] * 2
            assert all("not on the disk yet" in reply["lines"][-1] for reply in replies), replies
            assert records(real_disk) == []
            assert shell("status")["owed"] == 2
            guard.tells("kill: frozen (not on the disk yet: record 2, ")
        kept = records(real_disk, more_than=1)
        assert [each["body"]["guests"][0]["name"] for each in kept] == ["web-1", "web-2"]
        guard.tells("late: the disk has not answered for ")
    finally:
        if shell is not None:
            shell.end()
        guard.end()
        for process in processes:
            process.kill()
            process.wait()
    (report,) = journals.verify_own()
    assert (report.name, report.is_whole, report.verdict.whole.seq) == ("guard", True, 3)
    took = ", ".join(f"{reply['took_ns'] / 1e6:.1f}" for reply in replies)
    with capsys.disabled():
        sys.stdout.write(f"\nfigure: guard: on a disk that hangs, the first one and the next, ms: {took}\n")


def test_a_bench_tells_what_each_trouble_costs(runtime: Path) -> None:
    lone = len(os.sched_getaffinity(0)) == 2
    done = subprocess.run(
        [ORCHESTRATOR, "bench", "guard", "--rounds", "2", "--json", *(["--borrow-service-core"] if lone else [])],
        env={**os.environ, "ORCHESTRATOR_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    report = json.loads(done.stdout)
    measured = {each["wrong"]: each["guests"] for each in report["cases"]}
    notes = " ".join(report["notes"])
    for what in CASES:
        assert measured.get(what) == 2 or f"not measured: {what}: " in notes, report
    assert {"nothing", "every core is busy", "the disk hangs"} <= measured.keys()


def test_a_run_in_the_foreground_heeds_it(guard: Guard, tmp_path: Path) -> None:
    assert guard.process.poll() is None
    definition = tmp_path / "shown.toml"
    definition.write_text(SHOWN.format(payload=ROOT / "domains/build/heartbeat-i386.elf"))
    shell = Shell(CONSOLES[0], dict(os.environ))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.functional.foreground_side", str(definition)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as run:
        assert run.stdout is not None

        def tells(**what: str) -> None:
            told = []
            for line in run.stdout or ():
                told.append(json.loads(line))
                if told[-1] == what:
                    return
            raise AssertionError((what, told))

        try:
            tells(state="running")
            assert shell("freeze shown --reason look")["code"] == 0
            tells(line="the emergency console: freeze shown (look)")
            tells(state="paused")
            assert shell("thaw shown --reason enough")["code"] == 0
            tells(state="running")
            assert shell("kill shown --reason enough")["code"] == 0
            ended = [json.loads(line) for line in run.stdout][-1]["ended"]
            assert "killed at the emergency console: enough" in ended, "it is not started anew"
        finally:
            shell.end()
            run.terminate()

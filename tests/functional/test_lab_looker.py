"""The eye of the lab's observer sees what it is there for: who runs, for how long, on which core, and two on one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.observer import compile_looker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide libvirt's status files behind others")

BUSY = "import os; os.sched_setaffinity(0, {1})\nwhile True: pass"
NOW_AND_THEN = """
import time
while True:
    time.sleep(0.05)
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        pass
"""
IDLE = "import time; time.sleep(600)"
WITHIN = """\
mkdir -p /run/libvirt
mount -t tmpfs libvirt /run/libvirt
mkdir /run/libvirt/qemu
for pid in $2; do echo "<domstatus state='running' reason='booted' pid='$pid'>" >/run/libvirt/qemu/guest-$pid.xml; done
exec "$1" 5000
"""
Kin = dict[str, list[list[str]]]


@pytest.fixture
def processes() -> Iterator[list[int]]:
    started = [subprocess.Popen([sys.executable, "-c", text]) for text in (BUSY, BUSY, NOW_AND_THEN, IDLE)]
    time.sleep(0.3)
    yield [each.pid for each in started]
    for each in started:
        each.kill()
        each.wait()


def reports(program: Path, processes: list[int], running: list[int]) -> Kin:
    """Look at these processes for half a second, libvirt saying that some run, and return what is told, by kind."""
    told: Kin = {}
    command = ["unshare", "--mount", "sh", "-c", WITHIN, "sh", str(program), " ".join(map(str, running))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdin is not None

        def say(*lines: str) -> Any:
            looker.stdin.writelines(f"{line}\n" for line in lines)  # type: ignore[union-attr]  # asserted above
            looker.stdin.flush()  # type: ignore[union-attr]  # asserted above

        say(*(f"vcpu guest-{pid} {pid} {pid} 0" for pid in processes), "go")
        time.sleep(0.5)
        say(*(f"vcpu guest-{pid} {pid} {pid} 0" for pid in processes), "go")  # as after another search
        time.sleep(0.5)
        out, _ = looker.communicate("report\n")
    for line in out.splitlines():
        kind, *rest = line.split()
        told.setdefault(kind, []).append(rest)
    return told


def test_who_runs_is_seen_and_for_how_long_and_that_the_core_is_reserved(tmp_path: Path, processes: list[int]) -> None:
    told = reports(compile_looker(tmp_path), processes, running=[])
    (looks, seconds) = told["looks"][0]
    assert int(looks) > 10
    ran = {name: float(each) for name, each, _ in told["guest"]}
    waited = {name: float(longest) for name, _, longest in told["guest"]}
    *busy, sometimes, idle = (f"guest-{pid}" for pid in processes)
    assert all(ran[name] > 0.5 * float(seconds) for name in busy)
    assert 0 < ran[sometimes] < 0.9 * float(seconds)
    assert ran[idle] == 0
    assert all(waited[name] < 0.5 * float(seconds) for name in busy)
    said = {" ".join(words) for words in told["violation"]}
    assert {f"{name}: ran with vCPU 0, core 1" for name in busy} <= said
    assert not any(idle in line for line in said)


def test_two_that_want_one_core_are_seen_where_libvirt_says_that_both_run(tmp_path: Path, processes: list[int]) -> None:
    program = compile_looker(tmp_path)
    one, other, *_ = processes
    both = {" ".join(words) for words in reports(program, processes, running=[one, other])["violation"]}
    assert f"guest-{other}: wants what another has, vCPU 0, core 1" in both
    assert not any("wants" in " ".join(words) for words in reports(program, processes, running=[one])["violation"])

"""The lab for real: nested hosts are booted, used, and ended in every way there is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.errors import FailedError
from orchestrator.lab.kernel import default_cache, obtain_kernel
from orchestrator.lab.launch import emulator_name, minimal_environment, run_lab
from orchestrator.lab.shape import LabShape, parse_shape

PATIENCE = 300.0
"""Seconds; far more than a boot takes, so that only a hang ends here."""

LOOK_AROUND = """
cat /sys/devices/system/cpu/cpu*/topology/thread_siblings_list | sort -u | tr '\\n' ' '; echo
cat /sys/devices/system/node/node*/cpulist | tr '\\n' ' '; echo
nproc; id -u; pwd; command -v orchestrator; getent hosts "$(hostname)" | tr -s ' '
for controller in cpuset cpu io memory pids; do
    grep -qw $controller /sys/fs/cgroup/cgroup.subtree_control || echo "no $controller"
done
ls -d /lib/modules/"$(uname -r)"/kernel/arch/x86/kvm
ls /dev/kvm 2>&1
cat; echo written > written; cat written
echo to stderr > /dev/stderr
cat payload
sleep 300 &
exit 7
"""

LAUNCHER = """
import os, signal, sys
from pathlib import Path
from orchestrator.lab.kernel import default_cache
from orchestrator.lab.launch import run_lab
from orchestrator.lab.shape import LabShape
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in a shell's background is started deaf to it
run_lab(LabShape(), ["sleep", "300"], workdir=Path.cwd(), environment={}, output=1, timeout=300.0,
        cache=default_cache(os.environ))
"""


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    """Fetch the kernel now, so that no test waits for it within its own limit."""
    obtain_kernel(default_cache(os.environ))


def run(shape: LabShape, script: str, directory: Path, *, timeout: float = PATIENCE) -> tuple[int, bytes]:
    """Run a shell script in a lab; return its exit code and its output."""
    output = directory / "output"
    try:
        with output.open("wb") as file:
            code = run_lab(
                shape,
                ["bash", "-c", script],
                workdir=directory,
                environment=minimal_environment(os.environ),
                output=file.fileno(),
                timeout=timeout,
                cache=default_cache(os.environ),
            )
    finally:
        assert emulators(os.getpid()) == []
    return code, output.read_bytes()


def emulators(launcher: int) -> list[int]:
    """Return the emulators of `launcher` that run: those whose name is on their command line."""
    name = emulator_name(launcher).encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if name in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_host_with_two_sockets_two_nodes_and_threads(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 1200 + b"\x01no end mark"
    (tmp_path / "payload").write_bytes(payload)
    shape = parse_shape(topology="sockets=2,cores=2,threads=2", nodes=2)
    code, output = run(shape, LOOK_AROUND, tmp_path)
    assert code == 7
    assert output[-len(payload) :] == payload
    assert output[: -len(payload)].decode().splitlines() == [
        "0-1 2-3 4-5 6-7 ",
        "0-3 4-7 ",
        "8",
        "0",
        str(tmp_path),
        str(Path(sys.executable).parent / "orchestrator"),
        "127.0.1.1 orchestrator-lab",
        f"/lib/modules/{obtain_kernel(default_cache(os.environ)).version}/kernel/arch/x86/kvm",
        "ls: cannot access '/dev/kvm': No such file or directory",
        "written",
        "to stderr",
    ]
    assert not (tmp_path / "written").exists(), "the lab wrote to this machine"


def test_isolated_cores_and_a_command_that_a_signal_ends(tmp_path: Path) -> None:
    code, output = run(
        parse_shape(cpus=4, isolate=True), "cd /sys/devices/system/cpu; cat isolated nohz_full; kill $$", tmp_path
    )
    assert output == b"2-3\n2-3\n"
    assert code == 128 + signal.SIGTERM


def test_a_nested_host_that_panics(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"(?s)went down.*Kernel panic - not syncing: sysrq"):
        run(parse_shape(cpus=1, memory="512M"), "echo c > /proc/sysrq-trigger", tmp_path)


def test_the_time_limit(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"time limit of 0\.5 s; --timeout gives it more"):
        run(LabShape(), "sleep 300", tmp_path, timeout=0.5)


def test_output_that_nobody_takes(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(FailedError, match="could not be written: Broken pipe"):
        run_lab(
            parse_shape(cpus=1, memory="512M"),
            ["/bin/echo"],
            workdir=tmp_path,
            environment={},
            output=writer,
            timeout=PATIENCE,
            cache=default_cache(os.environ),
        )
    os.close(writer)
    assert emulators(os.getpid()) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_nested_host_ends_with_its_launcher(end: signal.Signals, tmp_path: Path) -> None:
    cache = default_cache(os.environ).parent.parent
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as launcher:
        while not (found := emulators(launcher.pid)) and launcher.poll() is None:
            time.sleep(0.01)
        (emulator,) = found
        ending = os.pidfd_open(emulator)
        launcher.send_signal(end)
        assert launcher.wait(PATIENCE) != 0
    gone, _, _ = select.select([ending], [], [], PATIENCE)
    os.close(ending)
    assert gone, "the emulator outlived its launcher"
    assert list(tmp_path.iterdir()) == [], "something was left on the disk"

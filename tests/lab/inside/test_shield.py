"""The host shield on a real kernel: with load before and after, taken down bit for bit, killed at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.noise import Noise, Side
from orchestrator.core.policy import Policy
from orchestrator.core.shield import Change, divide
from orchestrator.errors import RefusedError
from orchestrator.host.kernel import KernelTrees
from orchestrator.host.shield_book import ShieldFile
from orchestrator.shielding import shield, unshield
from orchestrator.wiring import noise
from orchestrator.wiring import shield as wiring
from orchestrator.wiring.site import load_topology
from tests.lab.inside.looking import allowed_cores, command, emulators, eventually, says
from tests.lab.inside.servers import Serve, Servers

CGROUP = Path("/sys/fs/cgroup")
NOBODY = 65534
NO_SETAFFINITY = 0x04000000  # PF_NO_SETAFFINITY in include/linux/sched.h
MASKS = (
    *("/proc/irq/*/smp_affinity", "/proc/irq/default_smp_affinity", "/proc/sys/kernel/watchdog_cpumask"),
    *("/sys/devices/virtual/workqueue/**/cpumask", "/sys/class/net/*/queues/*/*ps_cpus"),
    *("/sys/fs/cgroup/cpuset.*", "/sys/fs/cgroup/*/cpuset.*", "/sys/fs/cgroup/cgroup.subtree_control"),
)
REST = {1}


def masks() -> dict[str, str]:
    """Every mask there is, as its file says."""
    found = {}
    for pattern in MASKS:
        for path in Path("/").glob(pattern[1:]):
            with contextlib.suppress(OSError):
                text = path.read_text()
                # Others switch other controllers on, for the ceilings of guests among them, and leave them so.
                found[str(path)] = str("cpuset" in text.split()) if path.name == "cgroup.subtree_control" else text
    return found


def threads() -> dict[str, tuple[str, frozenset[int]]]:
    """Every thread that can be moved, by its number and start time, with its name and where it may run.

    Where the kernel's own may run that nobody can move, it changes by itself (rescuers of workqueues).
    """
    found = {}
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, tail = (task / "stat").read_text().rpartition(")")
            if int(tail.split()[6]) & NO_SETAFFINITY:
                continue
            found[f"{task.name}:{tail.split()[19]}"] = (head.partition("(")[2], frozenset(allowed_cores(task)))
    return found


def differing(before: dict[str, tuple[str, frozenset[int]]]) -> dict[str, tuple[str, frozenset[int], frozenset[int]]]:
    """Return threads of both moments that may not run where they might, whatever program they have become."""
    after = threads()
    common = before.keys() & after.keys()
    return {key: (*before[key], after[key][1]) for key in common if before[key][1] != after[key][1]}


@contextlib.contextmanager
def load(user: int, *cores: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that does nothing but compute; where it is to run is its own affair."""
    prefix = ("taskset", "-c", ",".join(map(str, cores))) if cores else ()
    command = [*prefix, "nice", "-n", "19", "/bin/sh", "-c", "while :; do :; done"]
    with subprocess.Popen(command, user=user, group=user) as busy:
        try:
            yield busy
        finally:
            busy.kill()


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    """Cgroups of others: one without a word about cores, one that asks for some of the pool's."""
    for name in ("plain", "asking"):
        (CGROUP / name).mkdir()
    (CGROUP / "asking/cpuset.cpus").write_text("1-3\n")
    with load(0), load(0, 3), load(NOBODY), load(NOBODY, 0) as last:
        (CGROUP / "plain/cgroup.procs").write_text(f"{last.pid}\n")
        subprocess.run(["taskset", "-pc", "0", str(last.pid)], check=True, capture_output=True)
        yield


def check_shielded() -> None:
    """No thread of a program, and none of the kernel's that can be moved, may be anywhere else."""
    found = noise.measure(Policy(), 2)
    assert [each.core for each, _ in found] == [0, 2, 3, 4, 5]
    for each, _ in found:
        assert each.may == frozenset(), f"core {each.core}: {each.may}"
        assert not each.ran[Side.FOREIGN], f"core {each.core}: {each.ran}"
    for path in ("/proc/irq/*/smp_affinity", "/sys/devices/virtual/workqueue/**/cpumask"):
        for file in Path("/").glob(path[1:]):
            told = int(file.read_text().replace(",", ""), 16)
            assert told == 0b10 or str(file) in REFUSED, f"{file}: {told:x}"


def told(each: Noise) -> str:
    foreign, kernel = (each.total(side) // 1_000_000 for side in (Side.FOREIGN, Side.KERNEL))
    return f"foreign {foreign} ms, kernel {kernel} ms, {each.interrupts.total()} interrupts"


REFUSED: set[str] = set()


def test_the_commands_tell_what_they_do() -> None:
    assert (
        command("host", "kernel-args").out
        == "isolcpus=managed_irq,domain,2-5 nohz_full=2-5 rcu_nocbs=2-5 irqaffinity=1\n"
    )


def test_load_leaves_the_cores_of_guests_and_comes_back(tmp_path: Path) -> None:
    before, were = masks(), threads()
    loud = noise.measure(Policy(), 2)
    assert any(each.ran[Side.FOREIGN] for each, _ in loud)
    record = wiring.shield(Policy())
    try:
        REFUSED.update("/" + target for target in record.refused)
        says(f"changed: {wiring.counted(record)}", *(f"refused: {why}" for why in record.refused.values()))
        with load(0), load(NOBODY):
            check_shielded()
            there = Path("/proc/self/task").iterdir()
            assert all(allowed_cores(task) == REST for task in there)
            with pytest.raises(OSError, match="Invalid argument"):
                os.sched_setaffinity(0, {2})
            check_guests_and_scheduler(tmp_path)
            quiet = noise.measure(Policy(), 2)
        for (one, role), (other, _) in zip(loud, quiet, strict=True):
            says(f"core {one.core} ({role}): {told(one)}; shielded: {told(other)}")
        says(f"missing: {wiring.status(Policy()).missing}")
    finally:
        wiring.unshield()
    assert masks() == before
    assert differing(were) == {}


def check_guests_and_scheduler(directory: Path) -> None:
    """A daemon is where it belongs, its chores and guests, too; and the shield does not go under them."""
    servers = Servers(directory)
    try:
        serve = servers.start()
        assert {core for task in Path(f"/proc/{serve.process.pid}/task").iterdir() for core in allowed_cores(task)} == {
            0
        }
        families = Path(f"/proc/{serve.process.pid}/task").glob("*/children")
        children = [child for family in families for child in family.read_text().split()]
        assert children
        for child in children:
            assert allowed_cores(Path(f"/proc/{child}/task/{child}")) == REST
        started = command("start", "domains/heartbeat-i386.toml")
        assert started.code == 0, started.err
        eventually(lambda: len(emulators()) == 1, "a guest")
        (guest,) = emulators()
        (group,) = [line[4:] for line in Path(f"/proc/{guest}/cgroup").read_text().split() if line.startswith("0::/")]
        assert group.startswith("orchestrator/guests/")
        assert (CGROUP / group / "memory.max").read_text() != "max\n"
        assert ((CGROUP / group).parent / "cpuset.cpus.effective").read_text() == "2-5\n"
        where = [allowed_cores(task) for task in Path(f"/proc/{guest}/task").iterdir()]
        assert all(cores <= {2, 3, 4, 5} for cores in where), where
        check_shielded()
        check_that_a_write_to_its_cpuset_is_taken_back(serve, guest, where)
        with pytest.raises(RefusedError, match="end it and its guests first"):
            wiring.unshield()
        assert command("stop", "--all").code == 0
        eventually(lambda: not emulators(), "no guest")
        serve.end()
    finally:
        servers.clear()


def check_that_a_write_to_its_cpuset_is_taken_back(serve: Serve, guest: int, where: list[set[int]]) -> None:
    """And all are where they were: to keep to it the kernel has moved every thread inside."""
    cpuset = CGROUP / "orchestrator/cpuset.cpus"
    cpuset.write_text("0,5\n")
    serve.tells("the shield: orchestrator/cpuset.cpus was '0,5', not '0,2-5'; put back")
    assert cpuset.read_text() == "0,2-5\n"
    tasks = [Path(f"/proc/{serve.process.pid}/task"), Path(f"/proc/{guest}/task")]

    def back() -> bool:
        scheduler, emulator = ([allowed_cores(task) for task in path.iterdir()] for path in tasks)
        return all(cores == {0} for cores in scheduler) and sorted(map(sorted, emulator)) == sorted(map(sorted, where))

    eventually(back, "everybody is back")
    journal = Path("/var/lib/orchestrator/journal.jsonl")
    eventually(lambda: "shield put back" in journal.read_text(), "a record of it")


class Dying(KernelTrees):
    """Ends this process with SIGKILL, before or after the step of this number."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def make(self, change: Change) -> None:
        self._step()
        super().make(change)
        self._step()

    def undo(self, change: Change) -> None:
        self._step()
        super().undo(change)
        self._step()


def killed(steps: int, book: Path, *, down: bool) -> bool:
    """Raise the shield or take it down in a process of its own, which is killed after so many steps; was it?"""
    child = os.fork()
    if child == 0:
        topology = load_topology(Policy())
        kernel = Dying(steps)
        with contextlib.suppress(BaseException):
            if down:
                unshield(kernel, ShieldFile(book))
            else:
                shield(kernel, ShieldFile(book), divide(topology), isolated=False)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("down", [False, True], ids=["raising", "taking down"])
def test_killed_in_the_middle_it_is_completed_or_undone(tmp_path: Path, down: bool) -> None:
    before, were = masks(), threads()
    book, kernel, division = tmp_path / "shield.json", KernelTrees(), divide(load_topology(Policy()))
    shield(kernel, ShieldFile(book), division, isolated=False)
    steps = 2 * len(ShieldFile(book).load().changes)  # type: ignore[union-attr]  # it has just been written
    unshield(kernel, ShieldFile(book))
    assert masks() == before
    points = sorted({1, steps // 4, steps // 2, steps - 12, steps - 9, steps - 6, steps - 4, steps - 2, steps - 1})
    says(f"killed at {points} of {steps} half steps")
    for number, point in enumerate(points):
        if down:
            shield(kernel, ShieldFile(book), division, isolated=False)
        # The kernel's threads come and go, and with them steps: the last points may lie behind the end.
        assert killed(point, book, down=down) or point > steps * 3 // 4
        if number % 2:
            shield(kernel, ShieldFile(book), division, isolated=False)
            check_shielded()
        unshield(kernel, ShieldFile(book))
        assert masks() == before, f"after {point} steps"
        assert differing(were) == {}, f"after {point} steps"
        assert not book.exists()


def test_a_host_with_cgroup_v1() -> None:
    """Last, since the controller leaves the other hierarchy for it."""
    legacy = Path("/run/legacy")
    for name in ("plain", "asking"):
        for word in (CGROUP / name / "cgroup.procs").read_text().split():
            (CGROUP / "cgroup.procs").write_text(word)
        (CGROUP / name).rmdir()
    (CGROUP / "cgroup.subtree_control").write_text("-cpuset\n")
    (legacy / "cpuset").mkdir(parents=True)

    def mounted() -> bool:
        done = subprocess.run(["mount", "-t", "cgroup", "-o", "cpuset", "none", str(legacy / "cpuset")], check=False)
        return done.returncode == 0

    eventually(mounted, "cgroup v1")
    for name, cores in (("docker", "0-5"), ("docker/one", "2-3")):
        (legacy / "cpuset" / name).mkdir()
        (legacy / "cpuset" / name / "cpuset.mems").write_text("0\n")
        (legacy / "cpuset" / name / "cpuset.cpus").write_text(f"{cores}\n")
    book = ShieldFile(Path("/run/legacy/shield.json"))
    kernel, division = KernelTrees(legacy), divide(load_topology(Policy()))
    with load(0, 2) as inner, load(0):
        (legacy / "cpuset/docker/one/cgroup.procs").write_text(f"{inner.pid}\n")
        were, before = threads(), masks()
        sets = {str(path): path.read_text() for path in (legacy / "cpuset").glob("**/cpuset.cpus")}
        for _ in range(2):
            shield(kernel, book, division, isolated=False)
            outside = {name for name, cores in threads().values() if not parse_cpulist("0,2-5").isdisjoint(cores)}
            assert not outside & {"sh", "python3", "pytest", "nice"}, outside
            assert Path(f"/proc/{inner.pid}/cpuset").read_text() == "/docker/one\n"
        unshield(kernel, book)
        assert {str(path): path.read_text() for path in (legacy / "cpuset").glob("**/cpuset.cpus")} == sets
        assert differing(were) == {}
        assert masks() == before

"""The kernel's settings, read from and written to trees as kernels make them; the fake says the same of the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.noise import Side
from orchestrator.core.shield import Change, Division, Hierarchy, Kind, Seen, Task, decide
from orchestrator.core.shield_record import Phase, ShieldRecord
from orchestrator.errors import FailedError, HostError
from orchestrator.host.counters import Counters
from orchestrator.host.kernel import KernelTrees
from orchestrator.host.shield_book import ShieldFile
from orchestrator.shield_ports import Kernel
from tests.fakes.kernel import FakeKernel

STAT = "{tid} ({name}) S 1 1 1 0 -1 {flags} 0 0 0 0 5 7 0 0 20 0 1 0 {start} 0 0" + " 0" * 14 + " {core} 0 0\n"
CORES = Division(frozenset({0, 2, 3}), frozenset({1}))
SEEN = Seen(
    hierarchy=Hierarchy.UNIFIED,
    online=frozenset(range(4)),
    masks={
        "sys/devices/virtual/workqueue/cpumask": "f",
        "sys/devices/virtual/workqueue/writeback/cpumask": "f",
        "sys/class/net/eth0/queues/rx-0/rps_cpus": "c",
        "proc/irq/default_smp_affinity": "f",
        "proc/irq/9/smp_affinity": "0000000f",
        "proc/irq/24/smp_affinity": "00000008",
        "proc/sys/kernel/watchdog_cpumask": "0-3",
    },
    cpusets={"asking": "1-2", "plain": ""},
    settings={"cgroup.subtree_control": "cpuset memory"},
    tasks=(
        Task(2, 20, "kthreadd", frozenset(range(4)), kernel=True, fixed=False),
        Task(15, 30, "kworker/0:1", frozenset({0}), kernel=True, fixed=True),
        Task(100, 40, "a (b) c", frozenset({1, 2}), kernel=False, fixed=False),
        Task(101, 41, "second", frozenset(range(4)), kernel=False, fixed=False),
    ),
)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def process(proc: Path, tid: int, name: str, cores: str, *, flags: int = 0, start: int = 0, group: str = "/") -> None:
    for where in {proc / str(tid), proc / ("100" if tid == 101 else str(tid))}:
        task = where / "task" / str(tid)
        write(task / "stat", STAT.format(tid=tid, name=name, flags=flags, start=start, core=2).strip())
        write(task / "status", f"Name:\t{name}\nCpus_allowed_list:\t{cores}\nMems_allowed:\t1")
        write(task / "schedstat", "5000000 10 3")
        write(where / "cgroup", f"0::{group}")


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """SEEN as files; thread 101 is the second of process 100, and process 300 is under the shield."""
    for path, text in SEEN.masks.items():
        write(tmp_path / path, text)
    write(tmp_path / "sys/devices/system/cpu/online", "0-3")
    write(tmp_path / "sys/class/net/eth0/queues/tx-0/tx_timeout", "0")
    write(tmp_path / "proc/irq/9/spurious", "count 1")
    write(tmp_path / "proc/sys/kernel/random/boot_id", "b1")
    write(tmp_path / "cgroup/cgroup.controllers", "cpuset cpu memory")
    write(tmp_path / "cgroup/cgroup.subtree_control", "cpuset memory")
    for name, text in SEEN.cpusets.items():
        write(tmp_path / "cgroup" / name / "cpuset.cpus", text)
        write(tmp_path / "cgroup" / name / "cpuset.cpus.partition", "member")
    proc = tmp_path / "proc"
    process(proc, 2, "kthreadd", "0-3", flags=0x00200040, start=20)
    process(proc, 15, "kworker/0:1", "0", flags=0x04200040, start=30)
    process(proc, 100, "a (b) c", "1-2", start=40)
    process(proc, 101, "second", "0-3", start=41)
    (proc / "101").rename(tmp_path / "hidden")  # /proc/TID is there for who asks, and not among the names
    process(proc, 300, "qemu", "2", start=50, group="/orchestrator/tasks")
    return tmp_path


def kernel_of(trees: Path, pins: dict[int, frozenset[int]] | None = None) -> KernelTrees:
    def pin(tid: int, cores: frozenset[int]) -> None:
        if tid == 2:
            raise OSError(22, "Invalid argument")
        if pins is not None:
            pins[tid] = cores

    return KernelTrees(trees / "cgroup", trees / "proc", trees / "sys", pin)


def settled(seen: Seen) -> Seen:
    return replace(seen, tasks=tuple(sorted(seen.tasks, key=lambda task: task.tid)))


def test_what_is_seen(trees: Path) -> None:
    assert settled(kernel_of(trees).see()) == SEEN
    assert kernel_of(trees).boot == "b1"


def test_what_is_seen_of_version_1(trees: Path) -> None:
    (trees / "cgroup/cgroup.controllers").unlink()
    base = trees / "cgroup/cpuset"
    for path, text in {"cpuset.cpus": "0-3", "cpuset.mems": "0", "docker/cpuset.cpus": "0-3"}.items():
        write(base / path, text)
    write(base / "docker/one/cpuset.cpus", "2")
    write(base / "orchestrator.rest/cpuset.cpus", "1")
    write(base / "cgroup.procs", "2\n100\n999")
    write(trees / "proc/300/cgroup", "5:memory:/x\n3:cpu,cpuset:/orchestrator\n0::/")
    seen = kernel_of(trees).see()
    assert seen.hierarchy is Hierarchy.LEGACY
    assert seen.cpusets == {"docker": "0-3", "docker/one": "2"}
    assert seen.settings == {"cpuset.mems": "0", "orchestrator.rest": "made", "orchestrator.rest/cpuset.cpus": "1"}
    assert seen.at_root == 1
    assert 300 not in {task.tid for task in seen.tasks}


def test_a_host_without_cpusets_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/cgroup.controllers", "cpu memory")
    with pytest.raises(HostError, match="no cpuset controller there"):
        kernel_of(tmp_path).see()


@pytest.mark.parametrize("which", ["trees", "fake"])
def test_masks_and_cpusets_of_others_change_and_come_back(which: str, trees: Path) -> None:
    kernel: Kernel = kernel_of(trees) if which == "trees" else FakeKernel(SEEN)
    changes = [each for each in decide(SEEN, CORES, isolated=False) if each.kind in (Kind.MASK, Kind.CPUSET)]
    assert len(changes) == len(SEEN.masks) + 1
    for _ in range(2):
        for change in changes:
            kernel.make(change)
        seen = kernel.see()
        for change in changes:
            assert {**seen.masks, **seen.cpusets}[change.target] == change.after
    for _ in range(2):
        for change in reversed(changes):
            kernel.undo(change)
        assert settled(kernel.see()) == SEEN


@pytest.mark.parametrize("which", ["trees", "fake"])
def test_a_cgroup_is_made_and_removed(which: str, trees: Path) -> None:
    kernel: Kernel = kernel_of(trees) if which == "trees" else FakeKernel(SEEN)
    change = Change(Kind.GROUP, "orchestrator", "", "made")
    kernel.make(change)
    assert kernel.see().settings["orchestrator"] == "made"
    kernel.undo(change)
    assert settled(kernel.see()) == SEEN
    kernel.undo(change)


def test_a_thread_is_moved_if_it_is_still_that_one(trees: Path) -> None:
    pins: dict[int, frozenset[int]] = {}
    kernel = kernel_of(trees, pins)
    kernel.make(Change(Kind.THREAD, "100:40", "1-2", "1"))
    kernel.make(Change(Kind.THREAD, "100:39", "1-2", "3"))
    kernel.make(Change(Kind.THREAD, "777:40", "1-2", "3"))
    kernel.undo(Change(Kind.THREAD, "15:30", "0", "0"))
    assert pins == {100: frozenset({1})}
    with pytest.raises(FailedError, match=r"thread 2 \(kthreadd\) cannot be moved to cores 1: Invalid argument"):
        kernel.make(Change(Kind.THREAD, "2:20", "0-3", "1"))


def test_what_has_gone_is_fine_but_not_for_what_the_shield_stands_on(trees: Path) -> None:
    kernel = kernel_of(trees)
    kernel.make(Change(Kind.MASK, "proc/irq/77/smp_affinity", "f", "2"))
    kernel.undo(Change(Kind.MASK, "proc/irq/77/smp_affinity", "f", "2"))
    kernel.make(Change(Kind.CPUSET, "gone", "2", "1"))
    kernel.undo(Change(Kind.CPUSET, "gone", "2", "1"))
    assert not (trees / "proc/irq/77").exists()
    with pytest.raises(FailedError, match=r"cpuset.cpus: cannot be set to '2': No such file"):
        kernel.make(Change(Kind.SETTING, "orchestrator/cpuset.cpus", "", "2"))


def test_a_partition_that_the_kernel_does_not_take_is_told(trees: Path) -> None:
    path = trees / "cgroup/orchestrator/cpuset.cpus.partition"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    with pytest.raises(FailedError, match="cannot be set to 'root': No space left"):
        kernel_of(trees).make(Change(Kind.SETTING, "orchestrator/cpuset.cpus.partition", "member", "root"))
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(FailedError, match="the kernel makes no partition of it: nothing"):
        kernel_of(trees).make(Change(Kind.SETTING, "orchestrator/cpuset.cpus.partition", "member", "root"))


def test_a_record_is_kept_as_a_whole(tmp_path: Path) -> None:
    book = ShieldFile(tmp_path / "shield.json")
    record = ShieldRecord("b1", Phase.SHIELDED, CORES, (Change(Kind.MASK, "m", "f", "2"),), {"x": "why"})
    assert book.load() is None
    book.save(record)
    book.save(replace(record, phase=Phase.UNSHIELDING))
    assert book.load() == replace(record, phase=Phase.UNSHIELDING)
    assert [path.name for path in tmp_path.iterdir()] == ["shield.json"]
    book.drop()
    book.drop()
    assert book.load() is None
    (tmp_path / "shield.json").write_text("{")
    with pytest.raises(HostError, match="it is no record of a shield"):
        book.load()


def test_counters_of_who_ran(trees: Path) -> None:
    proc = trees / "proc"
    write(
        proc / "interrupts",
        "     CPU0 CPU1\n  9:  5  7  IO-APIC  9-edge  acpi\nERR:  0\nLOC: 1 2 Local timer interrupts",
    )
    write(proc / "softirqs", "     CPU0 CPU1\n  TIMER: 5 7")
    write(proc / "stat", "cpu 1 2 3 4 5 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 3 0 0\nintr 5")
    counters = Counters(lambda pid: pid == 300, 15, proc)
    look = counters.look()
    assert {key: (each.name, each.side) for key, each in look.threads.items()} == {
        "2:20": ("kthreadd", Side.KERNEL),
        "100:40": ("a (b) c", Side.FOREIGN),
        "101:41": ("second", Side.FOREIGN),
        "300:50": ("qemu", Side.OURS),
    }
    assert {(each.core, each.ran) for each in look.threads.values()} == {(2, 5_000_000)}
    assert look.interrupts[1] == {"9 IO-APIC 9-edge acpi": 7, "LOC Local timer interrupts": 2}
    assert look.steal == {0: 30_000_000}
    assert ("second", Side.FOREIGN, frozenset(range(4))) in set(counters.allowed())
    assert len(counters.watch(0.02, 0.01)) >= 2
    assert len(counters.watch(0, 1)) == 2

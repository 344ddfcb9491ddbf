"""The Processes port: the fake and a /proc tree agree; this very process is read; and processes are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from orchestrator.core.pins import Standing
from orchestrator.core.xml.monitor import OUR_MONITOR
from orchestrator.errors import FailedError
from orchestrator.host.processes import ProcFs, terminate
from orchestrator.ports import Processes, Thread, ThreadRoles
from tests.fakes.host import FakeDomain, FakeHost
from tests.fakes.processes import FakeProcesses

UUID = "11111111-1111-4111-8111-111111111111"
MAIN = Thread(tid=700, name="qemu-system-x86", allowed=frozenset({2, 3, 8}), last_core=3, cpu_seconds=0.0)
VCPU = replace(MAIN, tid=1001, name="CPU 0/KVM", allowed=frozenset({2}), last_core=2)
ODD = replace(MAIN, tid=999, name="a) S (b", allowed=frozenset({1023}), last_core=1023)


class Side(Protocol):
    """Something to put processes into, and the port that reads them."""

    processes: Processes

    def add(self, pid: int, uuid: str, threads: list[Thread]) -> None: ...


@dataclass
class FakeSide:
    host: FakeHost = field(default_factory=FakeHost)

    def __post_init__(self) -> None:
        self.processes: Processes = FakeProcesses(self.host)

    def add(self, pid: int, uuid: str, threads: list[Thread]) -> None:
        live = {thread.tid: thread for thread in threads}
        self.host.domains[uuid] = FakeDomain(
            name=uuid, uuid=uuid, metadata=None, monitor="", threads=live, roles=ThreadRoles({}, {}), pid=pid
        )


@dataclass
class TreeSide:
    root: Path

    def __post_init__(self) -> None:
        self.standing: dict[int, Standing] = {}
        self.processes: Processes = ProcFs(self.root, ask=self.ask)
        (self.root / "self").mkdir()
        (self.root / "uptime").write_text("1.0 1.0\n")

    def add(self, pid: int, uuid: str, threads: list[Thread]) -> None:
        self.arguments(pid, "qemu-system-x86_64", "-name", "guest=one", "-uuid", uuid, "-S")
        for thread in threads:
            self.thread(pid, thread)

    def ask(self, tid: int) -> Standing:
        if tid not in self.standing:
            raise ProcessLookupError
        return self.standing[tid]

    def arguments(self, pid: int, *words: str) -> None:
        (self.root / str(pid) / "task").mkdir(parents=True)
        (self.root / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))

    def thread(self, pid: int, thread: Thread, state: str = "S") -> None:
        """Write the files of proc(5), with a different number in each field so that no two can be mixed up."""
        task = self.root / str(pid) / "task" / str(thread.tid)
        task.mkdir()
        self.standing[thread.tid] = Standing(thread.allowed)
        ticks = int(thread.cpu_seconds * os.sysconf("SC_CLK_TCK"))
        fields = [state, *map(str, range(104, 153))]  # fields 3 to 52
        fields[11:13] = [str(ticks - ticks // 3), str(ticks // 3)]
        fields[36] = str(thread.last_core)
        (task / "stat").write_text(f"{thread.tid} ({thread.name}) {' '.join(fields)}\n")
        listed = ",".join(map(str, sorted(thread.allowed)))
        (task / "status").write_text(f"Name:\tx\nState:\t{state}\nCpus_allowed:\tff\nCpus_allowed_list:\t{listed}\n")


@pytest.fixture(params=["fake", "tree"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    return FakeSide() if request.param == "fake" else TreeSide(tmp_path)


def test_a_process_that_is_not_there_has_no_threads(side: Side) -> None:
    assert side.processes.threads(700) == ()


def test_threads_are_told_in_order_with_all_that_the_kernel_says(side: Side) -> None:
    side.add(700, UUID, [VCPU, MAIN, ODD])
    assert side.processes.threads(700) == (MAIN, ODD, VCPU)
    assert side.processes.threads(701) == ()


def test_a_guest_is_found_by_its_uuid(side: Side) -> None:
    side.add(700, UUID, [MAIN])
    side.add(800, UUID.replace("1", "2"), [VCPU])
    assert side.processes.find(UUID) == 700
    assert side.processes.find(UUID.replace("1", "2")) == 800
    assert side.processes.find(UUID.replace("1", "3")) is None


def test_only_the_argument_after_uuid_names_a_domain(tmp_path: Path) -> None:
    tree = TreeSide(tmp_path)
    tree.arguments(5, "grep", UUID)
    tree.arguments(6, "qemu-system-arm", "-uuid")
    tree.arguments(7)
    (tmp_path / "8").mkdir()
    assert tree.processes.find(UUID) is None


def test_cpu_time_is_user_and_system_time(tmp_path: Path) -> None:
    tree = TreeSide(tmp_path)
    busy = replace(MAIN, cpu_seconds=12.34)
    tree.add(700, UUID, [busy])
    assert tree.processes.threads(700) == (busy,)


def test_threads_that_ended_or_vanish_are_left_out(tmp_path: Path) -> None:
    tree = TreeSide(tmp_path)
    tree.add(700, UUID, [MAIN])
    tree.thread(700, replace(VCPU, tid=2000), state="Z")
    tree.thread(700, replace(VCPU, tid=2001), state="X")
    tree.thread(700, replace(VCPU, tid=2002))
    (tmp_path / "700/task/2002/stat").unlink()
    assert tree.processes.threads(700) == (MAIN,)


def test_emulators_of_ours_carry_our_monitor(tmp_path: Path) -> None:
    tree = TreeSide(tmp_path)
    tree.arguments(5, "qemu-system-arm", "-uuid", UUID, "-mon", OUR_MONITOR)
    tree.arguments(6, "qemu-system-arm", "-uuid", UUID, "-mon", "chardev=charmonitor,id=monitor,mode=control")
    assert ProcFs(tmp_path).emulators_of_ours() == {5}


def test_this_process_is_seen_as_it_is() -> None:
    done, tids = threading.Event(), []

    def work() -> None:
        tids.append(threading.get_native_id())
        done.wait()

    other = threading.Thread(target=work)
    other.start()
    try:
        threads = {thread.tid: thread for thread in ProcFs().threads(os.getpid())}
    finally:
        done.set()
        other.join()
    assert {os.getpid(), *tids} <= set(threads)
    me = threads[os.getpid()]
    assert me.allowed == os.sched_getaffinity(0)
    assert me.last_core in me.allowed
    assert me.name == Path("/proc/self/comm").read_text().rstrip("\n")
    assert 0 < me.cpu_seconds <= sum(os.times()[:2]) + 1


def test_a_thread_that_is_pinned_is_seen_so() -> None:
    core = max(os.sched_getaffinity(0))
    seen: list[frozenset[int]] = []

    def work() -> None:
        os.sched_setaffinity(0, {core})
        me = threading.get_native_id()
        seen.extend(thread.allowed for thread in ProcFs().threads(os.getpid()) if thread.tid == me)

    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert seen == [frozenset({core})]


@contextmanager
def sleeper(*arguments: str, stubborn: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with these arguments until it is ended; a stubborn one ignores SIGTERM."""
    program = f"import signal, sys; signal.signal(signal.SIGTERM, signal.{'SIG_IGN' if stubborn else 'SIG_DFL'}); "
    program += "sys.stdout.write('.'); sys.stdout.flush(); signal.pause()"
    process = subprocess.Popen([sys.executable, "-S", "-c", program, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)  # it has set up its signals now
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(("stubborn", "by"), [(False, signal.SIGTERM), (True, signal.SIGKILL)])
def test_a_guest_is_ended_if_need_be_by_force(stubborn: bool, by: signal.Signals) -> None:
    with sleeper("-uuid", UUID, stubborn=stubborn) as process:
        assert terminate(process.pid, UUID, grace=0.05 if stubborn else 10.0) is True
        assert process.wait() == -by


def test_a_process_that_is_another_domains_is_left_alone() -> None:
    with sleeper("-uuid", UUID) as process:
        assert terminate(process.pid, UUID.replace("1", "2")) is True
        assert process.poll() is None


def test_a_process_that_has_gone_counts_as_ended() -> None:
    with sleeper("-uuid", UUID) as process:
        pid = process.pid
        process.kill()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert terminate(pid, UUID) is True  # dead, but not reaped
        process.wait()
        assert terminate(pid, UUID) is True


def ended(program: str, setsid: bool) -> int:
    """Return a child that has ended and that nobody has waited for."""
    pid = os.posix_spawn(program, [program], {}, setsid=setsid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_only_emulators_that_were_left_to_us_are_reaped(tmp_path: Path) -> None:
    emulator = tmp_path / "qemu-system-x86_64"
    emulator.symlink_to("/bin/true")
    left, libvirts, other = ended(str(emulator), True), ended(str(emulator), False), ended("/bin/true", True)
    with sleeper("-mon", OUR_MONITOR) as alive:
        ProcFs().reap()
        assert alive.poll() is None
    with pytest.raises(ChildProcessError):
        os.waitpid(left, os.WNOHANG)
    assert [os.waitpid(pid, os.WNOHANG)[0] for pid in (libvirts, other)] == [libvirts, other]


@contextmanager
def qemu_lookalike() -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries a domain's uuid on its command line, as QEMU does."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", "-uuid", UUID]
    with subprocess.Popen(command) as process:
        try:
            while ProcFs().find(UUID) != process.pid:  # Popen returns just before the kernel shows the arguments
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_thread_is_pinned_and_one_that_has_gone_is_no_matter() -> None:
    kernel = ProcFs()
    with qemu_lookalike() as process:
        for core in (0, 1):
            kernel.pin(process.pid, frozenset({core}))
            assert {thread.allowed for thread in kernel.threads(process.pid)} == {frozenset({core})}
        with pytest.raises(FailedError, match=rf"thread {process.pid} cannot be moved to cores 1023: "):
            kernel.pin(process.pid, frozenset({1023}))
    kernel.pin(process.pid, frozenset({0}))


@pytest.mark.parametrize(
    ("line", "group", "moves"),
    [
        ("0::/machine/qemu-1-web.libvirt-qemu/libvirt/vcpu0", "machine/qemu-1-web.libvirt-qemu/libvirt/vcpu0", True),
        (
            r"0::/machine.slice/machine-qemu\x2d1.scope/libvirt/emulator",
            r"machine.slice/machine-qemu\x2d1.scope/libvirt/emulator",
            True,
        ),
        (
            "3:cpuset:/machine/qemu-1-web.libvirt-qemu/iothread1",
            "cpuset/machine/qemu-1-web.libvirt-qemu/iothread1",
            True,
        ),
        ("0::/system.slice/orchestrator.service", "system.slice/orchestrator.service", False),
        ("0::/", "", False),
    ],
)
def test_a_cpuset_of_libvirts_moves_with_its_thread_and_nobody_elses(
    tmp_path: Path, line: str, group: str, moves: bool
) -> None:
    with qemu_lookalike() as process:
        cpuset = tmp_path / "groups" / group / "cpuset.cpus"
        cpuset.parent.mkdir(parents=True)
        cpuset.write_text("0\n")
        said = tmp_path / "proc" / str(process.pid) / "cgroup"
        said.parent.mkdir(parents=True)
        said.write_text(f"4:memory:/elsewhere\n{line}\n")
        kernel = ProcFs(tmp_path / "proc", groups=tmp_path / "groups")
        kernel.pin(process.pid, frozenset({1}))
        assert cpuset.read_text() == "0\n"  # it was not in the way
        with pytest.raises(FailedError):  # there is no such core, as where a cpuset has none of those that are wanted
            kernel.pin(process.pid, frozenset({1022, 1023}))
        assert cpuset.read_text() == ("1022-1023\n" if moves else "0\n")


def test_only_the_process_of_the_domain_is_frozen_and_killed() -> None:
    kernel = ProcFs()
    with qemu_lookalike() as process:
        other = UUID.replace("1", "2")
        kernel.freeze(process.pid, other)
        kernel.kill(process.pid, other)
        assert process.poll() is None
        kernel.freeze(process.pid, UUID)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert state_of(process.pid) == "T"
        kernel.thaw(process.pid, other)
        assert state_of(process.pid) == "T"
        kernel.thaw(process.pid, UUID)
        os.waitid(os.P_PID, process.pid, os.WCONTINUED | os.WNOWAIT)
        kernel.kill(process.pid, UUID)
        assert process.wait() == -signal.SIGKILL
    kernel.kill(process.pid, UUID)


def test_where_threads_stand_is_what_their_files_say(side: Side) -> None:
    side.add(700, UUID, [MAIN, VCPU])
    read = {thread.tid: Standing(thread.allowed) for thread in side.processes.threads(700)}
    assert side.processes.standing(700) == read
    assert side.processes.standing(701) == {}


def test_this_process_is_asked_about_and_can_leave_a_real_time_class() -> None:
    kernel, mine = ProcFs(), threading.get_native_id()
    stands = Standing(frozenset(os.sched_getaffinity(mine)))
    assert kernel.standing(os.getpid())[mine] == stands
    try:
        os.sched_setscheduler(mine, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        pytest.skip("this user may not enter a real-time class")
    assert kernel.standing(os.getpid())[mine].realtime
    kernel.calm(mine)
    assert kernel.standing(os.getpid())[mine] == stands
    kernel.calm(2**22 - 1)


def test_a_process_is_gathered_where_this_one_is(tmp_path: Path) -> None:
    write = {
        "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuset:/guests\n0::/our/own\n",
        "cg/our/own/cgroup.procs": "",
        "cg/cpuset/guests/cgroup.procs": "",
        "cg/memory/m/cgroup.procs": "",
    }
    for name, text in write.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    ProcFs(tmp_path / "proc").gather(77)
    texts = [(tmp_path / name).read_text() for name in write]
    assert texts == list(write.values())
    ProcFs(tmp_path / "proc", tmp_path / "cg").gather(77)
    assert [(tmp_path / name).read_text() for name in list(write)[1:]] == ["77\n", "77\n", ""]


def test_of_this_process_it_is_told_how_much_memory_it_has_and_that_it_has_done_something(tmp_path: Path) -> None:
    kernel, me = ProcFs(), os.getpid()
    assert 10_000_000 < kernel.memory(me) < 1 << 40
    before, limit = kernel.activity(me), time.process_time() + 1.0
    while kernel.activity(me) == before:
        assert time.process_time() < limit, "a hundred ticks have passed"
    assert len(before.split()) == 4
    assert (ProcFs(tmp_path).memory(me), ProcFs(tmp_path).activity(me)) == (0, "")


def test_the_fake_tells_the_same_of_a_guest_that_works_and_of_one_that_is_gone() -> None:
    side = FakeSide()
    side.add(700, UUID, [MAIN, VCPU])
    before = side.processes.activity(700)
    assert side.processes.activity(700) == before
    del side.host.domains[UUID].threads[VCPU.tid]
    assert side.processes.activity(700) != before
    assert side.processes.memory(700) > 0
    assert (side.processes.memory(701), side.processes.activity(701)) == (0, "")


def test_threads_of_the_kernel_for_a_process_are_found_by_their_name(tmp_path: Path) -> None:
    def names(**threads: str) -> None:
        children = tmp_path / "2" / "task" / "2" / "children"
        children.parent.mkdir(parents=True, exist_ok=True)
        children.write_text("".join(f"{pid.strip('p')} " for pid in threads))
        for pid, name in threads.items():
            (tmp_path / pid.strip("p")).mkdir(exist_ok=True)
            (tmp_path / pid.strip("p") / "comm").write_text(f"{name}\n")

    kernel = ProcFs(tmp_path)
    assert kernel.workers(700) == ()  # as in a container, where process 2 is anybody
    names(p10="kworker/0:1", p11="vhost-700", p12="vhost-7001", p13="vhost-700")
    assert kernel.workers(700) == (11, 13)
    assert kernel.workers(7001) == (12,)
    names(p10="vhost-700", p13="vhost-700", p14="vhost-700")
    assert kernel.workers(700) == (13, 14)  # a name that was read is not read again
    names(p13="vhost-700")
    assert kernel.workers(700) == (13,)
    names(p10="vhost-700", p13="vhost-700")  # another thread by now
    assert kernel.workers(700) == (10, 13)


def test_a_process_that_was_killed_is_dying_whoever_holds_it_up() -> None:
    kernel = ProcFs()
    held = subprocess.Popen(["sleep", "600"])
    try:
        assert not kernel.is_dying(held.pid)
        held.send_signal(signal.SIGSTOP)
        assert not kernel.is_dying(held.pid)
    finally:
        held.kill()
    assert kernel.is_dying(held.pid)
    held.wait()
    assert kernel.is_dying(held.pid)


@pytest.mark.parametrize(
    ("pending", "flags", "state", "dying"),
    [
        (("0", "0"), 0x400000, "S", False),
        (("0", "4"), 0x400000, "S", False),
        (("100", "0"), 0x400000, "R", True),
        (("0", "0000000000000100"), 0x400000, "D", True),
        (("0", "0"), 0x400004, "R", True),
        (("0", "0"), 0x400000, "Z", True),
    ],
)
def test_the_kernel_says_that_a_process_is_dying(
    tmp_path: Path, pending: tuple[str, str], flags: int, state: str, dying: bool
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(f"Name:\tx\nSigPnd:\t{pending[0]}\nShdPnd:\t{pending[1]}\n")
    (tmp_path / "7" / "stat").write_text(f"7 (x) {state} 1 7 7 0 -1 {flags} 0 0\n")
    assert ProcFs(tmp_path).is_dying(7) is dying

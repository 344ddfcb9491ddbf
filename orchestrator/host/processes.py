"""/proc: the threads behind guests, as the kernel sees them; and the ends of processes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.core.cpulist import format_cpulist, parse_cpulist
from orchestrator.core.pins import Standing
from orchestrator.core.xml.monitor import OUR_MONITOR
from orchestrator.endings import end, opened
from orchestrator.errors import FailedError
from orchestrator.ports import Thread
from orchestrator.process_identity import identity

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_REALTIME = (os.SCHED_FIFO, os.SCHED_RR, 6)  # 6: SCHED_DEADLINE
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_EXITING = 4  # PF_EXITING in include/linux/sched.h


_OURS = re.compile(r"\((qemu-system-|qemu-storage-|virtiofsd\b|swtpm\b)")
"""How the names of guests' processes begin, of which the kernel keeps 15 characters."""

_LIBVIRTS = re.compile(r"/machine[./].*qemu.*/(vcpu\d+|iothread\d+|emulator)$")
"""The control groups of a guest's threads, as libvirt names them; systemd's names for what is above them too."""


def _confined(tid: int, cores: frozenset[int]) -> bool:
    """Set where a thread may run, and tell whether that is what came of it: a cpuset may have none or few of these."""
    try:
        os.sched_setaffinity(tid, cores)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return os.sched_getaffinity(tid) == cores


def _standing(tid: int) -> Standing:
    policy = os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK
    return Standing(frozenset(os.sched_getaffinity(tid)), policy in _REALTIME)


class ProcFs:
    """Reads a /proc tree. `root` is an argument so that a test can bring its own.

    `home` is where control groups are mounted, if guests' processes belong into that of this one; `groups` is where
    they are, whoever's they are.
    """

    def __init__(
        self,
        root: Path = Path("/proc"),
        home: Path | None = None,
        ask: Callable[[int], Standing] = _standing,
        groups: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._root = root
        self._groups = groups
        self._home = home
        self._ask = ask
        self._found: dict[str, int] = {}
        self._workers: dict[int, str] = {}

    def find(self, uuid: str) -> int | None:
        """Return the pid of the QEMU process that runs the domain `uuid`: libvirt passes it as ``-uuid``.

        One look through all processes finds all domains, so who asks for many, one after the other, pays for one look.
        """
        pid = self._found.get(uuid)
        if pid is None or self._uuid(pid) != uuid:
            self._found = {found: pid for pid in self._pids() if (found := self._uuid(pid)) is not None}
        return self._found.get(uuid)

    def _uuid(self, pid: int) -> str | None:
        """Return the domain that a process runs; None if it is no QEMU, or has gone."""
        arguments = self._cmdline(pid)
        if b"-uuid" not in arguments:
            return None
        (uuid,) = arguments[arguments.index(b"-uuid") + 1 :][:1] or (b"",)
        return uuid.decode("utf-8", "replace")

    def emulators_of_ours(self) -> frozenset[int]:
        """Return the pids of all QEMU processes that carry our own monitor."""
        return frozenset(pid for pid in self._pids() if OUR_MONITOR.encode() in self._cmdline(pid))

    def threads(self, pid: int) -> Sequence[Thread]:
        """Return the threads of a process, by thread id; those that end meanwhile are left out.

        Fields are those of proc(5): Cpus_allowed_list in ``status``; comm, utime (14), stime (15) and
        processor (39) in ``stat``.
        """
        try:
            tids = sorted(int(entry.name) for entry in (self._root / str(pid) / "task").iterdir())
        except OSError:
            return ()
        return tuple(thread for tid in tids if (thread := self._thread(pid, tid)) is not None)

    def activity(self, pid: int) -> str:
        """Return utime (14), stime (15), num_threads (20) and starttime (22 in proc(5)), in the kernel's ticks."""
        try:  # without a file object around it: this is asked of each guest each second
            handle = os.open(f"{self._root}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            fields = os.read(handle, 4096).rpartition(b")")[2].split()
        except OSError:
            return ""
        finally:
            os.close(handle)
        return b" ".join(fields[place] for place in (11, 12, 17, 19)).decode()

    def memory(self, pid: int) -> int:
        """Return the resident bytes of a process: the second field of ``statm`` (proc(5)), in pages."""
        try:
            return int((self._root / str(pid) / "statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def standing(self, pid: int) -> Mapping[int, Standing]:
        """Return where each thread may run, as the kernel answers by itself; no file is read but a directory."""
        found = {}
        with contextlib.suppress(OSError):
            for tid in map(int, os.listdir(f"{self._root}/{pid}/task")):  # noqa: PTH208 (asked as often as `activity`)
                with contextlib.suppress(ProcessLookupError):
                    found[tid] = self._ask(tid)
        return found

    def workers(self, pid: int) -> Sequence[int]:
        """Return the kernel threads that are called ``vhost-PID``; since Linux 6.4 they are threads of the process.

        They are children of kthreadd, which is process 2. Names do not change, and are read once.
        """
        try:
            there = (self._root / "2" / "task" / "2" / "children").read_text().split()
        except OSError:  # in a container there is no kthreadd, nor may anybody pin threads of the kernel
            return ()
        self._workers = {number: self._workers.get(number) or self._comm(number) for number in map(int, there)}
        return tuple(number for number, name in self._workers.items() if name == f"vhost-{pid}")

    def _comm(self, pid: int) -> str:
        try:
            return (self._root / str(pid) / "comm").read_text("utf-8", "replace").strip()
        except OSError:
            return ""

    def is_dying(self, pid: int) -> bool:
        """Read whether SIGKILL is pending (SigPnd, ShdPnd of ``status``), or the process ends (flags, 9 in proc(5))."""
        process = self._root / str(pid)
        try:
            status = (process / "status").read_text("utf-8", "replace")
            fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return True
        pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\S+)", status, re.MULTILINE)
        killed = any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)
        return killed or fields[0] in "ZX" or bool(int(fields[6]) & _EXITING)

    def calm(self, tid: int) -> None:
        """Put a thread into SCHED_OTHER; fine if it has gone. FailedError if the kernel refuses."""
        try:
            os.sched_setscheduler(tid, os.SCHED_OTHER, os.sched_param(0))
        except ProcessLookupError:
            return
        except OSError as error:
            raise FailedError(f"thread {tid} cannot leave its real-time class: {error.strerror}") from error

    def gather(self, pid: int) -> None:
        """Bring a process into the cpuset of this one; nothing without a home."""
        if self._home is None:
            return
        try:
            for line in (self._root / "self" / "cgroup").read_text().splitlines():
                number, controllers, path = line.split(":", 2)
                if number == "0" or "cpuset" in controllers.split(","):
                    base = self._home if number == "0" else self._home / "cpuset"
                    group = base / path.lstrip("/") / "cgroup.procs"
                    if group.exists():
                        group.write_text(f"{pid}\n")
        except ProcessLookupError:
            return
        except OSError as error:
            raise FailedError(f"process {pid} cannot be brought back into its cgroup: {error.strerror}") from error

    def pin(self, tid: int, cores: frozenset[int]) -> None:
        """Let a thread run on these cores only; fine if it has gone. FailedError if the kernel refuses.

        libvirt's own daemon has a cpuset for each vCPU, which says the same then, or no core outside it could be had.
        """
        try:
            if not _confined(tid, cores):
                self._move_cpuset(tid, cores)
                os.sched_setaffinity(tid, cores)
        except ProcessLookupError:
            return
        except OSError as error:
            where = format_cpulist(cores)
            raise FailedError(f"thread {tid} cannot be moved to cores {where}: {error.strerror}") from error

    def _move_cpuset(self, tid: int, cores: frozenset[int]) -> None:
        """Have the cpuset that libvirt has made for a thread be these cores; one of anybody else's stays as it is."""
        try:
            lines = (self._root / str(tid) / "cgroup").read_text().splitlines()
        except OSError:  # it has gone, as the kernel will say next
            return
        for line in lines:
            number, controllers, path = line.split(":", 2)
            if _LIBVIRTS.search(path) and (number == "0" or "cpuset" in controllers.split(",")):
                base = self._groups if number == "0" else self._groups / "cpuset"
                cpuset = base / path.lstrip("/") / "cpuset.cpus"
                if cpuset.exists():
                    cpuset.write_text(f"{format_cpulist(cores)}\n")

    def identity(self, pid: int) -> str:
        """Return pid, starttime and the boot's id."""
        return identity(pid, self._root)

    def freeze(self, pid: int, uuid: str) -> None:
        """Send SIGSTOP to the QEMU process of this domain, which stops all its threads."""
        _signal(pid, uuid, signal.SIGSTOP)

    def thaw(self, pid: int, uuid: str) -> None:
        """Send SIGCONT to the QEMU process of this domain."""
        _signal(pid, uuid, signal.SIGCONT)

    def kill(self, pid: int, uuid: str) -> None:
        """Send SIGKILL to the QEMU process of this domain."""
        _signal(pid, uuid, signal.SIGKILL)

    def _thread(self, pid: int, tid: int) -> Thread | None:
        task = self._root / str(pid) / "task" / str(tid)
        try:
            status = (task / "status").read_text("utf-8", "replace")
            head, _, tail = (task / "stat").read_text("utf-8", "replace").rpartition(")")
        except OSError:
            return None
        fields = tail.split()  # fields[0] is field 3 of proc(5)
        allowed = next(
            (line.split(":", 1)[1] for line in status.splitlines() if line.startswith("Cpus_allowed_list:")),
            None,
        )
        if allowed is None or fields[0] in "ZX":
            return None
        return Thread(
            tid=tid,
            name=head.partition("(")[2],
            allowed=parse_cpulist(allowed),
            last_core=int(fields[36]),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        )

    def _pids(self) -> Iterator[int]:
        return (int(entry.name) for entry in self._root.iterdir() if entry.name.isdigit())

    def _cmdline(self, pid: int) -> list[bytes]:
        try:
            return (self._root / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return []

    def reap(self) -> None:
        """Collect QEMUs and back ends that ended as our children though another had started them in the background.

        They have a session of their own. For the children of this one, QEMUs among them, libvirt waits itself,
        and is confused if somebody else does.
        """
        me = os.getpid()
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return  # none of them has ended, which one call tells, however many guests there are
            children = (self._root / str(me) / "task" / str(me) / "children").read_text().split()
        except OSError:
            return
        for child in map(int, children):
            if self._is_left_behind(child):
                os.waitpid(child, os.WNOHANG)

    def _is_left_behind(self, pid: int) -> bool:
        try:
            head, _, tail = (self._root / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")
        except OSError:
            return False
        state, _parent, _group, session, *_ = tail.split()
        return _OURS.search(head) is not None and state == "Z" and int(session) != os.getsid(0)


def become_subreaper() -> None:
    """Have the kernel hand us our daemonized descendants when their parent ends, so that their end is seen at once.

    Whoever calls this must call `ProcFs.reap` now and then. See prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def terminate(pid: int, uuid: str, *, grace: float = 3.0) -> bool:
    """End the QEMU process `pid` of the domain `uuid`: SIGTERM, and SIGKILL after `grace` seconds.

    Returns whether it has ended; a process that is not that domain's (any more) counts as its end and is left alone.
    """
    with opened(pid, uuid) as handle:
        return handle is None or end(handle, grace)


def _signal(pid: int, uuid: str, number: signal.Signals) -> None:
    with opened(pid, uuid) as handle, contextlib.suppress(ProcessLookupError):
        if handle is not None:
            signal.pidfd_send_signal(handle, number)

"""Pins: does every live thread of a guest stay on the cores that its placement gives it?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE


@dataclass(frozen=True, slots=True)
class Stray:
    """A thread that may run where it must not: what it is, where it may run, where it should."""

    tid: int
    thread: str
    allowed: frozenset[int]
    expected: frozenset[int]

    def __str__(self) -> str:
        may, should = format_cpulist(self.allowed), format_cpulist(self.expected) or "no core"
        return f"thread {self.tid} ({self.thread}) may run on {may}; its placement gives it {should}"


class Standing(NamedTuple):
    """Where a thread may run, and whether it goes before all threads of ordinary programs (a real-time class)."""

    allowed: frozenset[int]
    realtime: bool = False


@dataclass(frozen=True, slots=True)
class Adrift:
    """A thread that somebody has moved: where it may run, where it belongs, and whether it is in a real-time class."""

    tid: int
    allowed: frozenset[int]
    expected: frozenset[int]
    realtime: bool

    def __str__(self) -> str:
        may, should = format_cpulist(self.allowed), format_cpulist(self.expected)
        where = "" if self.allowed <= self.expected else f"may run on {may}, its placement gives it {should}"
        return " and ".join(filter(None, [where, "is in a real-time class" if self.realtime else ""]))

    def describe(self, name: str) -> dict[str, object]:
        """Return it as JSON's types; `name` is the thread's."""
        allowed, expected = format_cpulist(self.allowed), format_cpulist(self.expected)
        return {
            "thread": self.tid,
            "name": name,
            "allowed": allowed,
            "placement": expected,
            "realtime": self.realtime,
        }


def adrift(
    standing: Mapping[int, Standing], vcpu_threads: Mapping[int, int], vcpus: Sequence[int], emulator: Iterable[int]
) -> tuple[Adrift, ...]:
    """Return the live threads that are not where they belong, or in a real-time class; arguments as for `strays`."""
    emulator, own = frozenset(emulator), _by_thread(vcpu_threads, vcpus)
    found = []
    for tid, each in sorted(standing.items()):
        expected = own[tid][1] if tid in own else emulator
        if each.realtime or not each.allowed <= expected:
            found.append(Adrift(tid, each.allowed, expected, each.realtime))
    return tuple(found)


def strays(
    allowed: Mapping[int, tuple[str, frozenset[int]]],
    vcpu_threads: Mapping[int, int],
    vcpus: Sequence[int],
    emulator: Iterable[int],
) -> tuple[Stray, ...]:
    """Compare live threads with a placement.

    `allowed` maps thread id to (name, cores it may run on); `vcpu_threads` maps vCPU index to thread id (several
    vCPUs may share one thread under TCG); `vcpus` has the core of each vCPU; every other thread, I/O threads
    included, belongs to `emulator`. O(threads).
    """
    emulator = frozenset(emulator)
    expected = _by_thread(vcpu_threads, vcpus)
    found = []
    for tid, (name, cores) in sorted(allowed.items()):
        label, own = expected.get(tid, ("", emulator))
        if not cores <= own:
            found.append(Stray(tid, f"{name}, {label}" if label else name, cores, own))
    return tuple(found)


def _by_thread(vcpu_threads: Mapping[int, int], vcpus: Sequence[int]) -> dict[int, tuple[str, frozenset[int]]]:
    """Return what each vCPU thread is, and the cores that are its own."""
    expected: dict[int, tuple[str, frozenset[int]]] = {}
    for index, tid in vcpu_threads.items():
        label, cores = expected.get(tid, ("", frozenset()))
        here = frozenset(vcpus[index : index + 1])
        expected[tid] = (f"{label} and {index}" if label else f"vCPU {index}", cores | here)
    return expected


def seats(
    allowed: Mapping[int, frozenset[int]], vcpu_threads: Mapping[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return where live threads are pinned: the core of each vCPU in order, and the cores of all other threads.

    None unless every vCPU has one core of its own, which is neither 0 nor 1: nobody has a place there, so who is found
    there has been moved. Arguments are as for `strays`, without the names. O(threads).
    """
    vcpus = [allowed.get(vcpu_threads.get(index, -1), frozenset()) for index in range(len(vcpu_threads))]
    others = [cores for tid, cores in allowed.items() if tid not in vcpu_threads.values()]
    pinned = tuple(core for cores in vcpus for core in cores)
    never = {SCHEDULER_CORE, SERVICE_CORE}
    emulator = frozenset().union(*others) - never
    if not emulator or any(len(cores) != 1 for cores in vcpus) or len(set(pinned) - never) < len(vcpus):
        return None
    return pinned, tuple(sorted(emulator))


def vcpu_threads_by_name(names: Mapping[int, str]) -> dict[int, int]:
    """Tell vCPU threads by the names that QEMU gives them (``CPU 1/KVM``; libvirt asks for debug-threads).

    `names` maps thread id to name; returns vCPU index to thread id. O(threads).
    """
    found = {}
    for tid, name in names.items():
        word, _, rest = name.partition(" ")
        index = rest.partition("/")[0]
        if word == "CPU" and index.isdecimal():
            found[int(index)] = tid
    return found


@dataclass(slots=True)
class ReservedCoreWatch:
    """Remembers every thread ever seen that could run, or last ran, on a reserved core."""

    reserved: Collection[int]
    looks: int = 0
    threads: set[int] = field(default_factory=set)
    offenders: dict[int, str] = field(default_factory=dict)

    def look(self, threads: Iterable[tuple[int, str, frozenset[int], int]]) -> None:
        """Take in (thread id, name, cores it may run on, core it last ran on). O(threads x reserved cores)."""
        self.looks += 1
        for tid, name, allowed, last in threads:
            self.threads.add(tid)
            if last in self.reserved or not allowed.isdisjoint(self.reserved):
                self.offenders[tid] = name

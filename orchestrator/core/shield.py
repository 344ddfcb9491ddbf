"""The shield: what of this host has to change so that everything else leaves core 0 and the pool alone.

The kernel's settings come in as a value (`Seen`), what has to be changed goes out as one (`Change`); nothing is read or
written here. A change says what was there before, so whoever keeps it can undo it.

::

    core            0 and its siblings     1 and its siblings, and what the policy reserves     2..N
    who             scheduler, guard       all the rest                                         guests
    cpuset          GROUP                  everybody else's                                     GROUP

On cgroup v2 GROUP is a cpuset partition: the kernel then takes its cores from every other cgroup, those that are yet to
be made included, and lets nobody outside ask for them. On v1 everybody else is gathered in REST.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.core.cpulist import format_cpulist, format_cpumask, parse_cpulist, parse_cpumask
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.core.topology import Topology
from orchestrator.errors import HostError, UsageError

GROUP = "orchestrator"
"""The cpuset of core 0 and the pool, below the root of the hierarchy."""

TASKS = f"{GROUP}/tasks"
"""Where processes are in it on cgroup v2. That the one above has the controller switched on for this one keeps others,
systemd above all, from switching it off: the kernel refuses them."""

REST = "orchestrator.rest"
"""On cgroup v1, the cpuset of everybody else."""


class Hierarchy(StrEnum):
    """Which kind of control groups has the cpuset controller."""

    UNIFIED = "v2"
    LEGACY = "v1"


class Kind(StrEnum):
    """What can be changed. `Change.target` is a thread (``TID:STARTTIME``), else a path below the kernel's trees."""

    THREAD = "thread"
    MASK = "mask"
    CPUSET = "cpuset"
    CONTROLLER = "controller"
    GROUP = "group"
    SETTING = "setting"
    GATHER = "gather"


@dataclass(frozen=True, slots=True)
class Change:
    """One setting and its two values: before the shield, and under it. Threads and cpusets have CPU lists.

    A GROUP is made and removed; GATHER brings what is in the root cpuset to the target.
    """

    kind: Kind
    target: str
    before: str
    after: str

    @property
    def key(self) -> tuple[Kind, str]:
        """What is changed, whatever to."""
        return self.kind, self.target

    @property
    def vital(self) -> bool:
        """Whether there is no shield without it; else it is said that it cannot be changed."""
        return self.kind not in (Kind.THREAD, Kind.MASK)

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sorts changes into the order in which they can be made; they are undone the other way round.

        Threads come first, and so last when undone: a kernel before 6.2 lets every thread run everywhere when a
        partition goes. Of other cpusets the inner ones must shrink first, and widen last.
        """
        if self.target in _STEPS and self.kind is not Kind.GATHER:
            return 3, _STEPS.index(self.target), ""
        stage = {Kind.THREAD: 0, Kind.MASK: 1, Kind.CPUSET: 2}.get(self.kind, 4)
        return stage, -self.target.count("/"), self.target


_STEPS = (
    *("cgroup.subtree_control", GROUP, f"{GROUP}/cpuset.mems", f"{GROUP}/cpuset.cpus"),
    *(f"{GROUP}/cpuset.cpus.partition", f"{GROUP}/cgroup.subtree_control", TASKS),
    *(REST, f"{REST}/cpuset.mems", f"{REST}/cpuset.cpus"),
)
"""What makes a cpuset, in order."""


@dataclass(frozen=True, slots=True)
class Division:
    """Which cores are for the scheduler and the guests, and which for everything else."""

    inside: frozenset[int]
    rest: frozenset[int]


@dataclass(frozen=True, slots=True)
class Task:
    """A thread outside the shield: `start` is its start time (22 in proc(5)), `fixed` that nobody may move it.

    A `kernel` thread belongs to no program.
    """

    tid: int
    start: int
    name: str
    allowed: frozenset[int]
    kernel: bool
    fixed: bool

    @property
    def key(self) -> str:
        """Names this thread and no later one of the same number."""
        return f"{self.tid}:{self.start}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The kernel's settings that matter, as found.

    `masks` maps the files of interrupt, workqueue and network masks to their texts; those in `lists` are CPU lists. All
    paths of control groups are relative to the root of their hierarchy, "" itself. `cpusets` has the cores that other
    cgroups ask for, `partitions` those of them that are partitions, `settings` the other files that decide.
    `at_root` is how many processes are in the root cpuset, kernel threads left out.
    """

    hierarchy: Hierarchy
    online: frozenset[int]
    masks: Mapping[str, str] = field(default_factory=dict)
    cpusets: Mapping[str, str] = field(default_factory=dict)
    partitions: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    at_root: int = 0


LISTS = frozenset({"proc/sys/kernel/watchdog_cpumask"})
"""The masks that are written as CPU lists."""


def divide(topology: Topology) -> Division:
    """Part the online cores in two. HostError where core 0, core 1 or the pool is missing. O(cores)."""
    online = {cpu.id: cpu for cpu in topology.cpus}
    if SCHEDULER_CORE not in online or SERVICE_CORE not in online or not topology.pool:
        raise HostError(
            "a host needs cores 0 and 1, and more for a pool, to be shielded; "
            f"online are {format_cpulist(online)}; see `orchestrator host topology`"
        )
    service = frozenset(online[SERVICE_CORE].siblings)
    inside = (frozenset(online[SCHEDULER_CORE].siblings) - service) | {SCHEDULER_CORE} | topology.pool.cores
    return Division(inside, frozenset(online) - inside)


def decide(seen: Seen, division: Division, *, isolated: bool) -> tuple[Change, ...]:
    """Return what is still to be changed, in the order in which it can be; empty if the shield is whole.

    `isolated` tells that the kernel was booted with some cores isolated: it then admits only partitions that are so,
    too. HostError if somebody else's partition is in the way. O(n log n) in what was seen.
    """
    return ordered((*_threads(seen, division), *_masks(seen, division), *_groups(seen, division, isolated=isolated)))


def ordered(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return changes in the order in which they can be made. O(n log n)."""
    return tuple(sorted(changes, key=lambda change: change.rank))


def merge(recorded: Iterable[Change], wanted: Iterable[Change]) -> tuple[Change, ...]:
    """Add changes to those that are recorded: what was there before the first of them stays known. O(n log n)."""
    known = {change.key: change for change in recorded}
    for change in wanted:
        old = known.get(change.key)
        known[change.key] = change if old is None else replace(old, after=change.after)
    return ordered(known.values())


def fallen(changes: Iterable[Change], settings: Mapping[str, str]) -> tuple[Change, ...]:
    """Return those of a shield's own settings that do not hold any more, in the order in which they can be made.

    `settings` are those of `Seen`. O(n log n).
    """
    own = (each for each in changes if each.kind in (Kind.CONTROLLER, Kind.GROUP, Kind.SETTING))
    return ordered(each for each in own if not _same(each.kind, settings.get(each.target), each.after))


def narrowed(before: frozenset[int], rest: frozenset[int]) -> frozenset[int]:
    """Return where something goes that was allowed on `before`: what of that is left, else all that there is."""
    return before & rest or rest


def _threads(seen: Seen, division: Division) -> Iterator[Change]:
    """Yield the threads that are to be moved.

    A program's thread that may run everywhere needs no change of its own: its cpuset confines it, and lets it go again.
    One that keeps to some cores is noted even if these are allowed, as long as there is no cpuset yet: when that goes,
    the kernel will have forgotten. Once there is one, nobody outside is free: a kernel before 6.4 lets a process run
    everywhere that is moved into the root cgroup.
    """
    raised = any(seen.settings.get(path) for path in (f"{GROUP}/cpuset.cpus", f"{REST}/cpuset.cpus"))
    for task in seen.tasks:
        free = not raised and task.allowed >= seen.online and not task.kernel
        done = raised and task.allowed <= division.rest
        if not task.fixed and not free and not done:
            wanted = format_cpulist(narrowed(task.allowed, division.rest))
            yield Change(Kind.THREAD, task.key, format_cpulist(task.allowed), wanted)


def _masks(seen: Seen, division: Division) -> Iterator[Change]:
    for path, text in seen.masks.items():
        cores = parse_mask(path, text)
        if not cores <= division.rest:  # none at all means "not used", and stays
            wanted = narrowed(cores, division.rest)
            after = format_cpulist(wanted) if path in LISTS else format_cpumask(wanted)
            yield Change(Kind.MASK, path, text, after)


def parse_mask(path: str, text: str) -> frozenset[int]:
    """Return the cores of a mask's text, in the notation that this file has."""
    return parse_cpulist(text) if path in LISTS else parse_cpumask(text)


def _groups(seen: Seen, division: Division, *, isolated: bool) -> Iterator[Change]:
    for path, text in seen.cpusets.items():
        cores = parse_cpulist(text)
        if cores and not cores <= division.rest:
            if path in seen.partitions:
                raise HostError(
                    f"the cgroup {path} is a cpuset partition of its own, with cores {text}, of which guests or the "
                    "scheduler need some; give those back (its cpuset.cpus), then shield"
                )
            yield Change(Kind.CPUSET, path, text, format_cpulist(narrowed(cores, division.rest)))
    if seen.hierarchy is Hierarchy.UNIFIED:
        wanted = _partition(format_cpulist(division.inside), "isolated" if isolated else "root")
    else:
        wanted = _two_sets(seen, division)
    for change in wanted:
        if not _same(change.kind, seen.settings.get(change.target), change.after):
            yield change
    if seen.hierarchy is Hierarchy.LEGACY and seen.at_root:
        yield Change(Kind.GATHER, REST, "", "gathered")


def _partition(cores: str, kind: str) -> Iterator[Change]:
    yield Change(Kind.CONTROLLER, "cgroup.subtree_control", "-cpuset", "+cpuset")
    yield Change(Kind.GROUP, GROUP, "", "made")
    yield Change(Kind.SETTING, f"{GROUP}/cpuset.cpus", "", cores)
    yield Change(Kind.SETTING, f"{GROUP}/cpuset.cpus.partition", "member", kind)
    yield Change(Kind.CONTROLLER, f"{GROUP}/cgroup.subtree_control", "-cpuset", "+cpuset")
    yield Change(Kind.GROUP, TASKS, "", "made")


def _two_sets(seen: Seen, division: Division) -> Iterator[Change]:
    for group, cores in ((GROUP, division.inside), (REST, division.rest)):
        yield Change(Kind.GROUP, group, "", "made")
        yield Change(Kind.SETTING, f"{group}/cpuset.mems", "", seen.settings.get("cpuset.mems", ""))
        yield Change(Kind.SETTING, f"{group}/cpuset.cpus", "", format_cpulist(cores))


def _same(kind: Kind, found: str | None, after: str) -> bool:
    if found is None:
        return False
    if kind is Kind.CONTROLLER:
        return "cpuset" in found.split()
    if found == after:
        return True
    try:
        return parse_cpulist(found) == parse_cpulist(after)
    except UsageError:
        return False

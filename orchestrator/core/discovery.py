"""From the texts of a sysfs tree to a `Topology`: what each file means, and what stands in for a missing one.

Nothing is read here. `Files` maps the path of each file, relative to ``/sys/devices/system``, to its
text; directories and links that tell something by being there (``cpu/cpu3``, ``cpu/cpu3/node1``,
``node/node1/cpu3``) map to an empty text. Which files exist depends on the kernel's age, on the
architecture and on whoever captured the tree, so each fact has several sources, the best first.

The files are described in the kernel's admin-guide/cputopology and ABI/stable/sysfs-devices-node. A
socket, die or core number that is -1 or missing counts as 0, as it does for libvirt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.cpulist import format_cpulist, parse_cpulist, parse_cpumask
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.core.topology import Cache, Cpu, Node, Topology, assign_roles
from orchestrator.errors import UsageError

Files = Mapping[str, str]

_SIBLINGS = ("thread_siblings_list", "core_cpus_list", "thread_siblings", "core_cpus")
_MASKS = ("/thread_siblings", "/core_cpus", "/shared_cpu_map", "/cpumap")

_ENTRY = re.compile(
    r"(?P<kind>cpu|node)/(?P=kind)(?P<id>[0-9]{1,9})"
    r"(?:/(?P<other>cpu|node)(?P<link>[0-9]{1,9})|/cache/index(?P<cache>[0-9]{1,9})/.*|/.*)?"
)
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_SIZE = re.compile(r"([0-9]{1,15})([KMG]?)")
_MEMORY = re.compile(r"MemTotal:\s*([0-9]{1,15}) kB")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def discover(files: Files, reserved: Iterable[int] = ()) -> Topology:
    """Return the topology that `files` tell of; `reserved` are cores that the policy keeps from guests.

    What is contradictory or had to be guessed is in the topology's warnings. Growth: linear in the
    size of the tree, beside sorting. Raises UsageError if no CPU is online in it.
    """
    tree = _Tree(files)
    online = _online(tree)
    siblings = _siblings(tree, online)
    node_of = _node_of(tree, online)
    reserved = frozenset(reserved)
    roles = assign_roles(siblings, reserved)
    offline = (tree.cpus("cpu/present") or frozenset(tree.cpu_ids)) - online
    _warn_of_roles(tree, online, offline, reserved)
    cpus = tuple(
        Cpu(
            id=cpu,
            core=tree.identity(cpu, "core_id"),
            socket=tree.identity(cpu, "physical_package_id"),
            die=tree.identity(cpu, "die_id"),
            node=node_of[cpu],
            siblings=tuple(sorted(siblings[cpu] & online)),
            role=roles[cpu][0],
            reason=roles[cpu][1],
        )
        for cpu in sorted(online)
    )
    return Topology(
        cpus=cpus,
        nodes=_nodes(tree, node_of),
        caches=_caches(tree, online),
        offline=tuple(sorted(offline)),
        isolated=tuple(sorted(tree.cpus("cpu/isolated"))),
        nohz_full=tuple(sorted(tree.cpus("cpu/nohz_full"))),
        warnings=tuple(tree.warnings),
    )


@dataclass(slots=True)
class _Tree:
    """The files, what directories and links there are among them, and the warnings met while reading them."""

    files: Files
    warnings: list[str] = field(default_factory=list)
    cpu_ids: set[int] = field(default_factory=set)
    node_ids: set[int] = field(default_factory=set)
    node_links: dict[int, int] = field(default_factory=dict)  # CPU to its node, from cpu/cpuN/nodeM
    cpu_links: dict[int, set[int]] = field(default_factory=dict)  # node to its CPUs, from node/nodeN/cpuM
    caches: dict[int, set[int]] = field(default_factory=dict)  # CPU to its cache indices

    def __post_init__(self) -> None:
        for path in self.files:
            entry = _ENTRY.fullmatch(path)
            if entry is None:
                continue
            kind, number = entry["kind"], int(entry["id"])
            (self.cpu_ids if kind == "cpu" else self.node_ids).add(number)
            if entry["cache"] and kind == "cpu":
                self.caches.setdefault(number, set()).add(int(entry["cache"]))
            elif entry["other"] == "node" and kind == "cpu":
                self.node_links[number] = int(entry["link"])
            elif entry["other"] == "cpu" and kind == "node":
                self.cpu_links.setdefault(number, set()).add(int(entry["link"]))

    def text(self, path: str) -> str:
        """Return a file's text, empty if it is missing; some kernels write ``(null)`` or NUL for none."""
        text = self.files.get(path, "").strip("\0 \t\r\n")
        return "" if text == "(null)" else text

    def number(self, path: str) -> int | None:
        text = self.text(path)
        if _NUMBER.fullmatch(text):
            return int(text)
        if text:
            self.warnings.append(f"{path}: {text[:40]!r} is not a number; ignored")
        return None

    def identity(self, cpu: int, name: str) -> int:
        return max(0, self.number(f"cpu/cpu{cpu}/topology/{name}") or 0)

    def cpus(self, *paths: str) -> frozenset[int]:
        """Return the CPUs that the first of these files to name any names; none if none does."""
        for path in paths:
            parse = parse_cpumask if path.endswith(_MASKS) else parse_cpulist
            try:
                named = parse(self.text(path))
            except UsageError as error:
                self.warnings.append(f"{path}: {error}; ignored")
                continue
            if named:
                return named
        return frozenset()


def _online(tree: _Tree) -> frozenset[int]:
    listed = tree.cpus("cpu/online")
    bare = listed - tree.cpu_ids
    if bare:
        tree.warnings.append(f"cpu/online names CPUs {format_cpulist(bare)}, which have no directory in the tree")
    # A CPU that cannot be switched off, often cpu0, has no online file of its own.
    online = listed or frozenset(cpu for cpu in tree.cpu_ids if tree.text(f"cpu/cpu{cpu}/online") != "0")
    if not online:
        raise UsageError("no CPU is online in this tree; it should hold cpu/online or cpu/cpu0, cpu/cpu1, ...")
    return online


def _siblings(tree: _Tree, online: frozenset[int]) -> dict[int, frozenset[int]]:
    """Return the CPUs, offline ones too, on the physical core of each online one, which is always among them.

    Equal core numbers are no stand-in for sibling files: some processors repeat them within a socket.
    """
    siblings = {cpu: tree.cpus(*(f"cpu/cpu{cpu}/topology/{name}" for name in _SIBLINGS)) for cpu in sorted(online)}
    untold = [cpu for cpu, shared in siblings.items() if not shared]
    if untold and len(online) > 1:
        tree.warnings.append(f"CPUs {format_cpulist(untold)} name no SMT siblings: each counts as a core of its own")
    selfless = [cpu for cpu, shared in siblings.items() if shared and cpu not in shared]
    if selfless:
        tree.warnings.append(f"CPUs {format_cpulist(selfless)} are not among their own SMT siblings: added to them")
    return {cpu: shared | {cpu} for cpu, shared in siblings.items()}


def _node_of(tree: _Tree, online: frozenset[int]) -> dict[int, int]:
    """Return the one node of each online CPU: of several claimants the one it links to, else the first."""
    node_of: dict[int, int] = {}
    contested, unclaimed = [], []
    for cpu, claimants in _claims(tree, online).items():
        link = tree.node_links.get(cpu)
        told = claimants if link is None else [*claimants, link]
        node_of[cpu] = link if link is not None and link in claimants else (told or [0])[0]
        if not told:
            unclaimed.append(cpu)
        elif set(told) != {told[0]}:
            contested.append(cpu)
    if contested:
        tree.warnings.append(f"NUMA files disagree on CPUs {format_cpulist(contested)}: each counts in one node only")
    if unclaimed and tree.node_ids:
        tree.warnings.append(f"no NUMA node claims CPUs {format_cpulist(unclaimed)}: they count in node 0")
    return node_of


def _claims(tree: _Tree, online: frozenset[int]) -> dict[int, list[int]]:
    """Return the nodes that claim each online CPU, ascending."""
    claims: dict[int, list[int]] = {cpu: [] for cpu in sorted(online)}
    for node in sorted(tree.node_ids):
        claimed = tree.cpus(f"node/node{node}/cpulist", f"node/node{node}/cpumap")
        for cpu in (claimed or tree.cpu_links.get(node, set())) & online:
            claims[cpu].append(node)
    return claims


def _nodes(tree: _Tree, node_of: Mapping[int, int]) -> tuple[Node, ...]:
    members: dict[int, list[int]] = {node: [] for node in tree.node_ids}
    for cpu, node in node_of.items():
        members.setdefault(node, []).append(cpu)
    columns = [tree.cpus("node/online"), tree.node_ids, tree.cpus("node/possible")]
    return tuple(
        Node(
            id=node,
            cpus=tuple(sorted(cpus)),
            memory=_memory(tree.text(f"node/node{node}/meminfo")),
            distances=_distances(tree, f"node/node{node}/distance", columns),
        )
        for node, cpus in sorted(members.items())
    )


def _memory(meminfo: str) -> int | None:
    total = _MEMORY.search(meminfo)
    return int(total[1]) << 10 if total else None


def _distances(tree: _Tree, path: str, columns: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    """Return a row of distances with the node of each; `columns` are sets of nodes that it may range over."""
    row = tree.text(path).split()
    for nodes in map(sorted, columns):
        if len(nodes) == len(row) and all(_NUMBER.fullmatch(distance) for distance in row):
            return tuple(zip(nodes, map(int, row), strict=True))
    if row:
        tree.warnings.append(f"{path}: {' '.join(row)[:40]!r} is not one distance for each node; ignored")
    return ()


def _caches(tree: _Tree, online: frozenset[int]) -> tuple[Cache, ...]:
    """Return each cache once, though every CPU that shares it tells of it."""
    found: dict[tuple[int, str, frozenset[int]], Cache] = {}
    for cpu in sorted(online & tree.caches.keys()):
        for index in sorted(tree.caches[cpu]):
            base = f"cpu/cpu{cpu}/cache/index{index}"
            level = tree.number(f"{base}/level")
            if level is None:
                continue
            shared = tree.cpus(f"{base}/shared_cpu_list", f"{base}/shared_cpu_map") or frozenset((cpu,))
            key = level, tree.text(f"{base}/type"), shared
            if key not in found:
                found[key] = Cache(*key[:2], _size(tree, f"{base}/size"), tuple(sorted(shared & online)))
    return tuple(sorted(found.values(), key=lambda cache: (cache.level, cache.type, cache.cpus)))


def _size(tree: _Tree, path: str) -> int | None:
    text = tree.text(path)
    size = _SIZE.fullmatch(text)
    if size:
        return int(size[1]) * _UNITS[size[2]]
    if text:
        tree.warnings.append(f"{path}: {text[:40]!r} is not a size such as 32K; ignored")
    return None


def _warn_of_roles(tree: _Tree, online: frozenset[int], offline: frozenset[int], reserved: frozenset[int]) -> None:
    for core, role in ((SCHEDULER_CORE, "scheduler"), (SERVICE_CORE, "service")):
        if core not in online:
            state = "offline" if core in offline else "absent"
            tree.warnings.append(f"core {core}, the {role} core, is {state}; no other core takes its place")
    if reserved - online:
        tree.warnings.append(f"the policy reserves cores {format_cpulist(reserved - online)}, which are not online")

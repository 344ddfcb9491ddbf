"""Random hosts, and what a scan over every core says about placement on them: the oracle for the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from hypothesis import strategies as st

from orchestrator.core.model import (
    MIB,
    Architecture,
    EmulatorThreads,
    GuestSpec,
    Mode,
    NumaWish,
    PayloadBoot,
    SmtWish,
)
from orchestrator.core.poolindex import Fit, PoolIndex
from orchestrator.core.topology import Cpu, Node, Topology, assign_roles

Core = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """What of a guest matters for its place."""

    vcpus: int
    smt: SmtWish = SmtWish.PREFER
    numa: NumaWish = NumaWish.PREFER
    emulator: EmulatorThreads = EmulatorThreads.SHARE

    @property
    def spec(self) -> GuestSpec:
        return GuestSpec(
            name="guest",
            architecture=Architecture.X86_64,
            vcpus=self.vcpus,
            memory=MIB,
            boot=PayloadBoot(payload="none"),
            mode=Mode.EXCLUSIVE,
            smt=self.smt,
            numa=self.numa,
            emulator=self.emulator,
        )


def host(cores: dict[Core, int], reserved: frozenset[int] = frozenset()) -> Topology:
    """Return the topology of a host with these physical cores, each in the NUMA node that it maps to."""
    siblings = {thread: frozenset(core) for core in cores for thread in core}
    node_of = {thread: node for core, node in cores.items() for thread in core}
    roles = assign_roles(siblings, reserved)
    cpus = tuple(
        Cpu(cpu, min(siblings[cpu]), 0, 0, node_of[cpu], tuple(sorted(siblings[cpu])), *roles[cpu])
        for cpu in sorted(siblings)
    )
    nodes = tuple(
        Node(node, tuple(cpu.id for cpu in cpus if cpu.node == node), None, ()) for node in sorted({*cores.values()})
    )
    return Topology(cpus, nodes, (), (), (), (), ())


@st.composite
def hosts(draw: st.DrawFn, widths: tuple[int, ...] = (1, 2, 4)) -> Topology:
    """Draw hosts of up to four nodes and ten physical cores of mixed widths, with holes in the CPU numbers."""
    shape = draw(st.lists(st.tuples(st.sampled_from(widths), st.sampled_from((0, 1, 2, 5))), min_size=1, max_size=10))
    threads = sum(width for width, _ in shape)
    numbers = draw(st.permutations(range(threads + 4)))
    cores: dict[Core, int] = {}
    for width, node in shape:
        cores[tuple(sorted(numbers[:width]))] = node
        numbers = numbers[width:]
    return host(cores, draw(st.frozensets(st.integers(0, threads), max_size=3)))


requests = st.builds(
    Request,
    vcpus=st.integers(1, 9),
    smt=st.sampled_from(SmtWish),
    numa=st.sampled_from(NumaWish),
    emulator=st.sampled_from(EmulatorThreads),
)


def suitable(topology: Topology, free: frozenset[int], wish: SmtWish, split: bool) -> dict[int, list[Core]]:
    """Return, node by node, what a guest of this wish may get of each physical core."""
    found: dict[int, list[Core]] = {}
    for core in topology.cores:
        there = tuple(thread for thread in core if thread in free)
        if (wish is SmtWish.PREFER and split and there) or (
            there == core and (wish is not SmtWish.REQUIRE or len(core) > 1)
        ):
            found.setdefault(topology.cpu(core[0]).node, []).append(there)
    return found


def use(core: Core, wish: SmtWish) -> int:
    return 1 if wish is SmtWish.ISOLATE else len(core)


def scan(index: PoolIndex, topology: Topology, count: int, wish: SmtWish, one_node: bool) -> Fit | None:
    """Choose as `PoolIndex.fit` says it does, by looking at every free core at every step."""
    free, split = index.free, index.split_cores
    nodes = suitable(topology, free, wish, split)
    room = {node: sum(use(core, wish) for core in cores) for node, cores in nodes.items()}
    used: Core = ()
    held: Core = ()
    spanned: list[int] = []
    while count:
        enough = sorted((room[node], node) for node in room if room[node] >= count)
        most = sorted((-room[node], node) for node in room)
        if not (enough or (most and not one_node)):
            return None
        node = (enough or most)[0][1]
        share = min(count, room.pop(node))
        some, kept = scan_node(nodes[node], share, wish, split)
        used, held, count = used + some, held + kept, count - share
        spanned.append(node)
    return Fit(used, held, tuple(sorted(spanned)) if len(topology.nodes) > 1 else ())


def scan_node(cores: list[Core], count: int, wish: SmtWish, split: bool) -> tuple[Core, Core]:
    used: Core = ()
    held: Core = ()
    left = list(cores)  # ascending; min and max give the first of equals
    while count:
        filled = [core for core in left if use(core, wish) <= count]
        if wish is SmtWish.ISOLATE:
            core = min(left, key=len)
        elif sum(map(len, filled)) >= count:
            core = max(filled, key=len)
        else:
            core = min((core for core in left if len(core) > count), key=len)
        left.remove(core)
        some = core[: min(count, use(core, wish))]
        used += some
        held += some if split and wish is SmtWish.PREFER else core
        count -= len(some)
    return used, held


def fewest_held(cores: list[Core], count: int, wish: SmtWish) -> int:
    """Return the least number of threads that whole physical cores for `count` threads can have, of all choices."""
    return min(sum(map(len, some)) for some in _choices(cores) if sum(use(core, wish) for core in some) >= count)


def fewest_nodes(topology: Topology, free: frozenset[int], count: int, wish: SmtWish) -> int:
    """Return the least number of nodes that have room for `count` threads in whole physical cores."""
    nodes = suitable(topology, free, wish, split=False).values()
    rooms = [sum(use(core, wish) for core in cores) for cores in nodes]
    return min(len(some) for size in range(len(rooms) + 1) for some in combinations(rooms, size) if sum(some) >= count)


def _choices(cores: list[Core]) -> Iterator[tuple[Core, ...]]:
    return (some for size in range(len(cores) + 1) for some in combinations(cores, size))

"""Which cores an exclusive guest gets: an index over the free part of a pool that answers without a scan.

The unit is the physical core with its SMT siblings. Each node keeps its physical cores in sets by how many of
their threads are free; and for each `SmtWish` the nodes are kept in sets by how much room they have for it. A set
is a Python int with one bit for each possible member, so that its lowest member, or the lowest above some bound,
takes a few operations on the int. Strictly those are linear in its length: 35 machine words of thirty bits for a
set of 1,024. "Words" below means those of one such set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import SmtWish
from orchestrator.core.topology import Topology
from orchestrator.errors import RefusedError

_WISHES = tuple(SmtWish)


class Fit(NamedTuple):
    """One guest's cores: those it runs on, vCPU by vCPU; all it keeps from others; their nodes, if the host has two."""

    used: tuple[int, ...]
    held: tuple[int, ...]
    nodes: tuple[int, ...]


class PoolIndex:
    """The cores of a pool that no exclusive guest holds. It changes through `take` and `release` alone.

    It is mutable, unlike most values of the core, since copying it would cost more than the decision. What it
    answers follows from the free cores alone, whatever was taken and released before.

    Unless `split_cores` is set, a guest holds each physical core that it touches with all threads. If it is, the
    threads of a core may go to different owners, but for guests that insist on siblings or on none in use.

    Growth: building is linear in the host's CPUs, beside sorting.
    """

    __slots__ = ("_free", "_home", "_name_nodes", "_nodes", "_views", "pool", "split_cores")

    def __init__(self, topology: Topology, free: Iterable[int] | None = None, *, split_cores: bool = False) -> None:
        self.pool = topology.pool
        self.split_cores = split_cores
        members: dict[int, list[tuple[int, ...]]] = {}
        for threads in physical_cores(topology):
            members.setdefault(topology.cpu(threads[0]).node, []).append(threads)
        widest = max((len(threads) for cores in members.values() for threads in cores), default=0)
        self._nodes = [_Node(place, node, members[node], widest) for place, node in enumerate(sorted(members))]
        self._name_nodes = len(topology.nodes) > 1
        # Where each pool core is: its node, and the number of its physical core there.
        self._home = {
            thread: (node, number)
            for node in self._nodes
            for number, threads in enumerate(node.cores)
            for thread in self.pool.cores.intersection(threads)
        }
        self._views = [_View(wish, self._nodes, widest, split_cores) for wish in _WISHES]
        self._free: set[int] = set()
        self._shift(self.pool.cores if free is None else self.pool.cores.intersection(free), 1)

    @property
    def free(self) -> frozenset[int]:
        """The pool cores that no exclusive guest holds. Growth: linear in them."""
        return frozenset(self._free)

    def __len__(self) -> int:
        """Return how many pool cores no exclusive guest holds."""
        return len(self._free)

    def room(self, wish: SmtWish) -> int:
        """Return how many threads one guest of this wish could use, on all nodes together. Growth: the nodes."""
        return sum(self._view(wish).room)

    def widest(self, wish: SmtWish) -> int:
        """Return how many threads one guest of this wish could use on a single node."""
        return self._view(wish).widest

    def take(self, cores: Iterable[int]) -> None:
        """Mark cores as held by an exclusive guest: all of them or, with RefusedError, none.

        Growth: the cores taken, times words.
        """
        cores = frozenset(cores)
        if not cores <= self._free:
            raise RefusedError(f"cores {format_cpulist(cores - self._free)} cannot be taken: they are not free")
        self._shift(cores, -1)

    def release(self, cores: Iterable[int]) -> None:
        """Mark cores as free again: all of them or, with RefusedError, none. Growth: as of `take`."""
        cores = frozenset(cores)
        if not cores <= self.pool.cores or not cores.isdisjoint(self._free):
            wrong = (cores & self._free) | (cores - self.pool.cores)
            raise RefusedError(f"cores {format_cpulist(wrong)} cannot be released: nobody holds them")
        self._shift(cores, 1)

    def fit(self, count: int, wish: SmtWish, *, one_node: bool) -> Fit | None:
        """Choose `count` threads for a guest, or None if there is no room; nothing is taken.

        The node with the least room that is enough is chosen, the lowest of equals. If none is, and `one_node` does
        not insist, the roomiest are used up first, so that a guest spans the fewest nodes.

        In a node, the widest physical cores that the guest fills come first, the lowest of equals; when those that
        it could still fill are too few, the narrowest one that covers the rest. A guest that wants cores alone
        begins with the narrowest. This leaves the fewest siblings idle where each width of a core divides the next
        larger one, as 1, 2, 4 and 8 do.

        Growth: physical cores taken and nodes spanned, each times words; and the nodes in which cores were taken
        or released since the last fit for this wish, which those acts have paid for.
        """
        view = self._view(wish)
        used: list[int] = []
        held: list[int] = []
        spanned: list[int] = []
        seen = 0
        while count > 0:
            place = view.snuggest(count, seen)
            if place is None and not one_node:
                place = view.roomiest(seen)
            if place is None:
                return None
            node, share = self._nodes[place], min(count, view.room[place])
            view.pick(node, share, self._free, used, held)
            spanned.append(node.id)
            seen |= 1 << place
            count -= share
        return Fit(tuple(used), tuple(held), tuple(sorted(spanned)) if self._name_nodes else ())

    def _view(self, wish: SmtWish) -> _View:
        view = self._views[_WISHES.index(wish)]
        if view.stale:
            view.refresh()
        return view

    def _shift(self, cores: frozenset[int], by: int) -> None:
        """Make cores free (`by` is 1) or held (-1)."""
        if by > 0:
            self._free |= cores
        else:
            self._free -= cores
        touched = set()
        for core in cores:
            node, number = self._home[core]
            node.shift(number, by)
            touched.add(node)
        for view in self._views:
            view.stale |= touched


class _Node:
    """A NUMA node, its physical cores and, as bits, which of them have how many free threads.

    `whole[n]` are those of n threads, all free; `part[n]` those with n free threads beside some that are not.
    `place` is where the index keeps the node.
    """

    __slots__ = ("_counts", "cores", "id", "part", "place", "whole")

    def __init__(self, place: int, number: int, cores: Sequence[tuple[int, ...]], widest: int) -> None:
        self.place = place
        self.id = number
        self.cores = cores
        self._counts = [0] * len(cores)
        self.whole = [0] * (widest + 1)
        self.part = [(1 << len(cores)) - 1] + [0] * widest

    def shift(self, number: int, by: int) -> None:
        """Count one more (`by` is 1) or one less (-1) of the threads of a physical core as free."""
        bit, width, before = 1 << number, len(self.cores[number]), self._counts[number]
        self._counts[number] = after = before + by
        (self.whole if before == width else self.part)[before] ^= bit
        (self.whole if after == width else self.part)[after] ^= bit


class _View:
    """The pool as guests of one wish see it: what each node has for them, and the nodes in order of that.

    `room` has the threads that a guest could use, by the places of the nodes; `stale` are the nodes for which it
    and the order are to be mended before the next use.
    """

    __slots__ = ("_alone", "_sizes", "_split", "_widths", "_with_room", "room", "stale")

    def __init__(self, wish: SmtWish, nodes: Sequence[_Node], widest: int, split_cores: bool) -> None:
        self._alone = wish is SmtWish.ISOLATE
        self._split = wish is SmtWish.PREFER and split_cores
        # The numbers of free threads of the cores that suit, in the order in which a guest takes those.
        widths = range(2 if wish is SmtWish.REQUIRE else 1, widest + 1)
        self._widths = widths if self._alone else widths[::-1]
        self.room = [0] * len(nodes)
        self.stale = set(nodes)
        # For each amount of room the nodes that have just so much, and the amounts that some node has.
        most = max((sum(map(len, node.cores)) for node in nodes), default=0)
        self._with_room = [(1 << len(nodes)) - 1] + [0] * most
        self._sizes = 1

    def refresh(self) -> None:
        """Put the stale nodes where they belong. Growth: the stale nodes, times words and threads of a core."""
        for node in self.stale:
            before, after, bit = self.room[node.place], self._room_in(node), 1 << node.place
            self.room[node.place] = after
            self._with_room[before] ^= bit
            if not self._with_room[before]:
                self._sizes ^= 1 << before
            self._with_room[after] ^= bit
            self._sizes |= 1 << after
        self.stale.clear()

    @property
    def widest(self) -> int:
        """The largest room of any node."""
        return self._sizes.bit_length() - 1

    def snuggest(self, count: int, seen: int) -> int | None:
        """Return the place of the node with the least room for `count` threads that is not among the bits `seen`."""
        sizes = self._sizes >> count << count
        while sizes:
            size = sizes & -sizes
            nodes = self._with_room[size.bit_length() - 1] & ~seen
            if nodes:
                return (nodes & -nodes).bit_length() - 1
            sizes ^= size
        return None

    def roomiest(self, seen: int) -> int | None:
        """Return the place of the node with the most room, if it has any, that is not among the bits `seen`."""
        sizes = self._sizes & ~1
        while sizes:
            size = sizes.bit_length() - 1
            nodes = self._with_room[size] & ~seen
            if nodes:
                return (nodes & -nodes).bit_length() - 1
            sizes ^= 1 << size
        return None

    def pick(self, node: _Node, count: int, free: set[int], used: list[int], held: list[int]) -> None:
        """Add `count` threads of a node that has room for them to `used`, and all they keep from others to `held`."""
        room = self.room[node.place]
        for width in self._widths:
            cores, fills = self._cores(node, width), 1 if self._alone else width
            room -= fills * cores.bit_count()
            while cores and count >= fills:
                lowest = cores & -cores
                cores ^= lowest
                threads = self._threads(node, lowest, free)
                used += threads[:fills]
                held += threads
                count -= fills
            if count > room:  # more than the narrower cores have: one of these is left, and covers it
                threads = self._threads(node, cores & -cores, free)
                used += threads[:count]
                held += threads[:count] if self._split else threads
                return
            if not count:
                return

    def _room_in(self, node: _Node) -> int:
        return sum(self._cores(node, width).bit_count() * (1 if self._alone else width) for width in self._widths)

    def _cores(self, node: _Node, width: int) -> int:
        return node.whole[width] | node.part[width] if self._split else node.whole[width]

    def _threads(self, node: _Node, core: int, free: set[int]) -> tuple[int, ...]:
        """Return the threads that a guest gets with a physical core, given as its bit."""
        threads = node.cores[core.bit_length() - 1]
        return tuple(thread for thread in threads if thread in free) if self._split else threads


def physical_cores(topology: Topology) -> list[tuple[int, ...]]:
    """Return the physical cores as ascending tuples of threads; one thread's word makes two of them siblings.

    Growth: the host's CPUs, beside sorting.
    """
    group: dict[int, frozenset[int]] = {}
    for cpu in topology.cpus:
        merged = frozenset(cpu.siblings).union({cpu.id}, *(group.get(thread, ()) for thread in cpu.siblings))
        group.update(dict.fromkeys(merged, merged))
    return sorted(tuple(sorted(threads)) for threads in set(group.values()))

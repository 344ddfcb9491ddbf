"""Which cores an exclusive guest gets: an index over the free part of a pool that answers without a scan.

The unit is the physical core with its SMT siblings. Each node keeps its physical cores in sets by how many of
their threads are free; the nodes themselves are kept in sets by how much room they have, once for each `SmtWish`.
A set is a Python int with one bit for each possible member, so that its lowest member, or the lowest above some
bound, takes a few operations on the int. Strictly those are linear in its length, of thirty bits a machine word:
35 words for a set of 1,024. "Words" below means those of one such set.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import SmtWish
from orchestrator.core.topology import Topology
from orchestrator.errors import RefusedError

# The wishes by number, since what is kept for each of them is looked up at every turn.
_WISHES = (SmtWish.PREFER, SmtWish.ISOLATE, SmtWish.REQUIRE)
_PREFER, _ISOLATE, _REQUIRE = range(3)


class Fit(NamedTuple):
    """Cores for one guest: those it runs on, vCPU by vCPU; all that it keeps from others; the ascending nodes."""

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

    __slots__ = ("_free", "_home", "_nodes", "_orders", "_rooms", "pool", "split_cores")

    def __init__(self, topology: Topology, free: Iterable[int] | None = None, *, split_cores: bool = False) -> None:
        self.pool = topology.pool
        self.split_cores = split_cores
        members: dict[int, list[tuple[int, ...]]] = {}
        for threads in _physical_cores(topology):
            members.setdefault(topology.cpu(threads[0]).node, []).append(threads)
        self._nodes = [_Node(place, node, members[node]) for place, node in enumerate(sorted(members))]
        # Where each pool core is: its node, and the place of its physical core there.
        self._home = {
            thread: (node, place)
            for node in self._nodes
            for place, threads in enumerate(node.cores)
            for thread in self.pool.cores.intersection(threads)
        }
        widest = max((len(threads) for node in self._nodes for threads in node.cores), default=0)
        # The numbers of free threads of a physical core in the order in which a guest takes them, for each wish.
        self._orders = (range(widest, 0, -1), range(1, widest + 1), range(widest, 1, -1))
        most = max((sum(map(len, node.cores)) for node in self._nodes), default=0)
        self._rooms = tuple(_Rooms(most, len(self._nodes)) for _ in _WISHES)
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
        rank = _WISHES.index(wish)
        return sum(node.room[rank] for node in self._nodes)

    def widest(self, wish: SmtWish) -> int:
        """Return how many threads one guest of this wish could use on a single node."""
        return self._rooms[_WISHES.index(wish)].widest

    def take(self, cores: Iterable[int]) -> None:
        """Mark cores as held by an exclusive guest: all of them or, with RefusedError, none.

        Growth: the cores taken, each times words.
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
        """Choose `count` threads for a guest, or None if there is no room; nothing changes.

        The node with the least room that is enough is chosen, the lowest of equals. If none is, and `one_node` does
        not insist, the roomiest are used up first, so that a guest spans the fewest nodes.

        In a node, the widest physical cores that the guest fills come first, the lowest of equals; what remains
        goes to the narrowest that covers it. A guest that wants cores alone begins with the narrowest. So the
        fewest siblings lie idle, where each width of a core divides the next one, as 1, 2, 4 and 8 do.

        Growth: physical cores taken and nodes spanned, each times words.
        """
        rank = _WISHES.index(wish)
        rooms = self._rooms[rank]
        used: list[int] = []
        held: list[int] = []
        spanned: list[int] = []
        seen = 0
        while count > 0:
            place = rooms.snuggest(count, seen)
            if place is None and not one_node:
                place = rooms.roomiest(seen)
            if place is None:
                return None
            node = self._nodes[place]
            share = min(count, node.room[rank])
            self._pick(node, share, rank, used, held)
            spanned.append(node.id)
            seen |= 1 << place
            count -= share
        return Fit(tuple(used), tuple(held), tuple(sorted(spanned)))

    def _pick(self, node: _Node, count: int, rank: int, used: list[int], held: list[int]) -> None:
        """Add `count` threads of a node that has room for them to `used`, and all they keep from others to `held`."""
        alone, split = rank == _ISOLATE, self.split_cores and rank == _PREFER
        spare: tuple[int, ...] = ()
        for width in self._orders[rank]:
            cores = node.whole[width] | node.part[width] if split else node.whole[width]
            fills = 1 if alone else width
            while cores and count >= fills:
                lowest = cores & -cores
                cores ^= lowest
                threads = self._threads(node, lowest, split)
                used += threads[:fills]
                held += threads
                count -= fills
            if not count:
                return
            if cores:
                spare = self._threads(node, cores & -cores, split)
        used += spare[:count]
        held += spare[:count] if split else spare

    def _threads(self, node: _Node, core: int, split: bool) -> tuple[int, ...]:
        """Return the threads of a physical core, given as its bit: all of them, or the free ones if it may be split."""
        threads = node.cores[core.bit_length() - 1]
        return tuple(thread for thread in threads if thread in self._free) if split else threads

    def _shift(self, cores: frozenset[int], by: int) -> None:
        """Make cores free (`by` is 1) or held (-1), and put their nodes where they now belong."""
        if by > 0:
            self._free |= cores
        else:
            self._free -= cores
        touched = set()
        for core in cores:
            node, place = self._home[core]
            node.shift(place, by)
            touched.add(node)
        for node in touched:
            before, node.room = node.room, node.count_room(self.split_cores)
            for rank, rooms in enumerate(self._rooms):
                rooms.move(node.place, before[rank], node.room[rank])


class _Node:
    """A NUMA node at its place in the index: its physical cores, and which of them have how many free threads.

    `whole[n]` are those of n threads, all free; `part[n]` those with n free threads beside some that are not, all
    as bits. `room` is how many threads a guest could use, for each wish.
    """

    __slots__ = ("_counts", "cores", "id", "part", "place", "room", "whole")

    def __init__(self, place: int, number: int, cores: list[tuple[int, ...]]) -> None:
        self.place = place
        self.id = number
        self.cores = cores
        self._counts = [0] * len(cores)

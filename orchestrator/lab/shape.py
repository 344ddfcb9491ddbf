"""The shape of a nested host, and how QEMU and its kernel are told of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import UsageError

_MIB: Final = 1 << 20
_UNITS: Final = {"M": _MIB, "G": _MIB << 10, "T": _MIB << 20}
_LEAST_MEMORY: Final = 512
"""MiB; below this the kernel, the overlay and one emulator do not fit."""
_LEAST_NODE_MEMORY: Final = 128
"""MiB; a node's own bookkeeping for all CPUs must fit."""
_LAST_APIC_ID: Final = 254
"""Where the emulated interrupt controllers end: 255 is their broadcast."""
_FIRST_POOL_CORE: Final = 2
"""Cores 0 and 1 belong to the scheduler and to services."""
_EXAMPLE: Final = "as in sockets=2,cores=2,threads=2"


@dataclass(frozen=True, slots=True)
class LabShape:
    """What a nested host looks like; a shape that can be built can be booted.

    `cores` counts per socket and `threads` per core, as in QEMU's ``-smp``. `nodes` is the number of NUMA
    nodes; CPUs and memory are split evenly among them. `memory` is in bytes. With `isolate` the kernel
    keeps its own work and its tick off cores 2 and up.

    Raises `UsageError` where the numbers do not fit together.
    """

    sockets: int = 1
    cores: int = 6
    threads: int = 1
    nodes: int = 1
    memory: int = 4 << 30
    isolate: bool = False

    def __post_init__(self) -> None:
        for name in ("sockets", "cores", "threads", "nodes"):
            if (count := getattr(self, name)) < 1:
                raise UsageError(f"lab: {name}={count} is not possible; a nested host has at least 1")
        self._check_cpus()
        self._check_nodes()
        self._check_memory()

    @property
    def cpus(self) -> int:
        """How many logical CPUs the nested host has."""
        return self.sockets * self.cores * self.threads

    def qemu_arguments(self) -> tuple[str, ...]:
        """Return the ``-smp``, ``-m`` and ``-numa`` arguments; O(nodes) of them."""
        smp = f"{self.cpus},sockets={self.sockets},cores={self.cores},threads={self.threads}"
        size = self._node_mib
        arguments = ["-smp", smp, "-m", f"{size * self.nodes}M"]
        share = self.cpus // self.nodes
        for node in range(self.nodes):
            first, last = node * share, node * share + share - 1
            arguments += ["-object", f"memory-backend-ram,id=node{node},size={size}M"]
            arguments += ["-numa", f"node,nodeid={node},cpus={first}-{last},memdev=node{node}"]
        return tuple(arguments)

    def kernel_arguments(self) -> tuple[str, ...]:
        """Return the kernel parameters that isolate the pool; none without `isolate`."""
        if not self.isolate:
            return ()
        pool = f"{_FIRST_POOL_CORE}-{self.cpus - 1}"
        return (f"isolcpus={pool}", f"nohz_full={pool}", f"rcu_nocbs={pool}")

    @property
    def _node_mib(self) -> int:
        """The even share of each node, in whole MiB."""
        return self.memory // _MIB // self.nodes

    def _check_cpus(self) -> None:
        # A CPU's APIC ID has a field of whole bits for each level: Intel SDM volume 3, "Hierarchical Mapping".
        thread_bits = (self.threads - 1).bit_length()
        core_bits = (self.cores - 1).bit_length()
        last = (((self.sockets - 1) << core_bits | self.cores - 1) << thread_bits) | self.threads - 1
        if last > _LAST_APIC_ID:
            raise UsageError(
                f"lab: {self.cpus} CPUs of this topology are too many: the last would have APIC ID {last}, "
                f"and {_LAST_APIC_ID} is the highest that can be emulated"
            )
        if (self.sockets, self.cores, self.threads) == (2, 3, 1):
            raise UsageError(
                "lab: Linux 6.1 does not come up on two emulated sockets of three cores; "
                "sockets=3,cores=2 has as many CPUs"
            )
        if self.isolate and self.cpus <= _FIRST_POOL_CORE:
            raise UsageError(f"lab: --isolate is for cores 2 and up, and {self.cpus} CPUs have none; ask for 3 or more")

    def _check_nodes(self) -> None:
        whole_sockets = self.sockets % self.nodes == 0
        parts_of_sockets = self.nodes % self.sockets == 0 and self.cores % (self.nodes // self.sockets) == 0
        if not (whole_sockets or parts_of_sockets):
            raise UsageError(
                f"lab: --numa {self.nodes} does not divide {self.sockets} socket(s) of {self.cores} core(s) evenly; "
                "each node holds whole sockets, or an equal part of one socket's cores"
            )

    def _check_memory(self) -> None:
        least = max(_LEAST_MEMORY, _LEAST_NODE_MEMORY * self.nodes)
        if self.memory < least * _MIB:
            raise UsageError(
                f"lab: --memory {self.memory // _MIB}M is too little for {self.nodes} NUMA node(s); "
                f"{least}M is the least"
            )


def parse_shape(
    *,
    cpus: int | None = None,
    topology: str | None = None,
    nodes: int = 1,
    memory: str = "4G",
    isolate: bool = False,
) -> LabShape:
    """Return the shape that the flags ask for: one socket with `cpus` cores, or a whole `topology`.

    `topology` reads ``sockets=2,cores=2,threads=2``; a level left out is 1. With neither there are 6 cores;
    if both are given they must agree. `memory` reads ``4G``.

    Raises `UsageError`: one line that says what would work.
    """
    levels = {"cores": 6 if cpus is None else cpus} if topology is None else _parse_topology(topology)
    shape = LabShape(**{"cores": 1, **levels}, nodes=nodes, memory=parse_memory(memory), isolate=isolate)
    if cpus is not None and cpus != shape.cpus:
        raise UsageError(f"lab: --topology {topology} has {shape.cpus} CPUs, --cpus says {cpus}; give one of them")
    return shape


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as ``512M``, ``4G`` or ``4 GiB`` (units M, G, T, powers of 1024).

    Raises `UsageError` for anything else.
    """
    found = re.fullmatch(r"(\d{1,9}) ?([MGT])(?:iB)?", text)
    if found is None:
        raise UsageError(f"lab: --memory {text} is not a size; give a whole number and a unit, as in 512M or 4G")
    return int(found[1]) * _UNITS[found[2]]


def _parse_topology(text: str) -> dict[str, int]:
    levels: dict[str, int] = {}
    for part in text.split(","):
        level, _, count = part.partition("=")
        if level not in ("sockets", "cores", "threads"):
            raise UsageError(f"lab: --topology {text}: {level!r} is not one of sockets, cores, threads ({_EXAMPLE})")
        if level in levels:
            raise UsageError(f"lab: --topology {text}: {level} is given twice")
        if not re.fullmatch(r"\d{1,4}", count):
            raise UsageError(f"lab: --topology {text}: {level} needs a whole number ({_EXAMPLE})")
        levels[level] = int(count)
    return levels

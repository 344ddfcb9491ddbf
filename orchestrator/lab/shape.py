"""The shape of a nested host, and how QEMU and its kernel are told of it. Pure values: no effect lives here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import UsageError

MIB: Final = 1 << 20
LEAST_MEMORY: Final = 512 * MIB
"""Below this the kernel, the overlay and one emulator do not fit."""
MOST_CPUS: Final = 255
"""What q35 offers without an interrupt remapper."""
FIRST_POOL_CORE: Final = 2
"""Cores 0 and 1 belong to the scheduler and to services."""

_TOPOLOGY_KEYS: Final = ("sockets", "cores", "threads")
_UNITS: Final = {"M": MIB, "G": MIB << 10, "T": MIB << 20}


@dataclass(frozen=True, slots=True)
class LabShape:
    """What a nested host looks like; every value that can be built can be booted.

    `cores` counts per socket and `threads` per core, as in QEMU's ``-smp``. `nodes` is the number of NUMA
    nodes; CPUs and memory are split evenly among them. `memory` is in bytes. With `isolate` the kernel
    keeps its own work off cores 2 and up.

    Raises `UsageError` where the numbers do not fit together.
    """

    sockets: int = 1
    cores: int = 6
    threads: int = 1
    nodes: int = 1
    memory: int = 4096 * MIB
    isolate: bool = False

    def __post_init__(self) -> None:
        for key in _TOPOLOGY_KEYS:
            if getattr(self, key) < 1:
                raise UsageError(f"lab topology: {key}={getattr(self, key)} is not possible; it is at least 1")
        if self.cpus > MOST_CPUS:
            raise UsageError(f"lab: {self.cpus} CPUs are too many; a nested host has 1 to {MOST_CPUS}")
        if self.isolate and self.cpus <= FIRST_POOL_CORE:
            raise UsageError(f"lab: isolation is for cores 2 and up, and this lab has {self.cpus}; ask for 3 or more")
        self._check_nodes()
        if self.memory < LEAST_MEMORY * self.nodes:
            raise UsageError(
                f"lab memory: {self.memory // MIB} MiB is too little for {self.nodes} NUMA node(s); "
                f"each needs {LEAST_MEMORY // MIB}M or more"
            )

    def _check_nodes(self) -> None:
        """A node must hold whole sockets, or whole cores of one socket; anything else exists nowhere."""
        if self.nodes < 1:
            raise UsageError(f"lab: {self.nodes} NUMA nodes are not possible; ask for 1 or more")
        whole_sockets = self.sockets % self.nodes == 0
        parts_of_one = self.nodes % self.sockets == 0 and self.cores % (self.nodes // self.sockets) == 0
        if not (whole_sockets or parts_of_one):
            raise UsageError(
                f"lab: {self.nodes} NUMA nodes do not divide {self.sockets} socket(s) of {self.cores} core(s) evenly; "
                "a node is made of whole sockets, or of whole cores of one socket"
            )

    @property
    def cpus(self) -> int:
        """How many logical CPUs the nested host has."""
        return self.sockets * self.cores * self.threads

    @property
    def node_memory(self) -> int:
        """The memory of each node in bytes: its even share, rounded down to whole MiB."""
        return self.memory // self.nodes // MIB * MIB

    def qemu_arguments(self) -> tuple[str, ...]:
        """Return the ``-smp``, ``-m`` and ``-numa`` arguments; O(nodes) of them."""
        smp = f"{self.cpus},sockets={self.sockets},cores={self.cores},threads={self.threads}"
        arguments = ["-smp", smp, "-m", f"{self.node_memory * self.nodes // MIB}M"]
        share = self.cpus // self.nodes
        for node in range(self.nodes) if self.nodes > 1 else ():
            cpus = f"{node * share}-{node * share + share - 1}"
            arguments += ["-object", f"memory-backend-ram,id=node{node},size={self.node_memory}"]
            arguments += ["-numa", f"node,nodeid={node},cpus={cpus},memdev=node{node}"]
        return tuple(arguments)

    def kernel_arguments(self) -> tuple[str, ...]:
        """Return the kernel parameters that isolate the pool, none without `isolate`."""
        if not self.isolate:
            return ()
        pool = f"{FIRST_POOL_CORE}-{self.cpus - 1}"
        return (f"isolcpus={pool}", f"nohz_full={pool}", f"rcu_nocbs={pool}")


def parse_shape(
    *,
    cpus: int | None = None,
    topology: str | None = None,
    nodes: int = 1,
    memory: str = "4G",
    isolate: bool = False,
) -> LabShape:
    """Return the shape that the flags ask for: `cpus` single-core CPUs of one socket, or a `topology`.

    `topology` reads ``sockets=2,cores=2,threads=2``; a key left out is 1. `memory` reads ``4G`` (units M, G,
    T are binary). With neither `cpus` nor `topology` it has six cores. If both are given they must agree.

    Raises `UsageError`, one line that says what would work.
    """
    size = parse_memory(memory)
    if topology is None:
        return LabShape(cores=6 if cpus is None else cpus, nodes=nodes, memory=size, isolate=isolate)
    parts = _parse_topology(topology)
    shape = LabShape(**parts, nodes=nodes, memory=size, isolate=isolate)
    if cpus is not None and cpus != shape.cpus:
        raise UsageError(f"lab: --topology {topology} has {shape.cpus} CPUs, --cpus says {cpus}; leave one of them out")
    return shape


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as ``512M``, ``4G`` or ``1.5 GiB``; raise `UsageError` otherwise."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*([MGT])(?:iB)?\s*", text)
    if found is None:
        raise UsageError(f"lab memory: {text!r} is not a size; write a number and a unit, such as 512M or 4G")
    return int(float(found[1]) * _UNITS[found[2]])


def _parse_topology(text: str) -> dict[str, int]:
    parts = dict.fromkeys(_TOPOLOGY_KEYS, 1)
    seen: set[str] = set()
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in parts:
            raise UsageError(
                f"lab topology: {key!r} is not one of sockets, cores, threads (as in sockets=2,cores=2,threads=2)"
            )
        if key in seen:
            raise UsageError(f"lab topology: {key} is given twice")
        if not re.fullmatch(r"\d{1,4}", value):
            raise UsageError(f"lab topology: {key}={value} is not a whole number (as in sockets=2,cores=2,threads=2)")
        seen.add(key)
        parts[key] = int(value)
    return parts

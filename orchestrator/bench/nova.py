"""OpenStack Nova's placement of guests with dedicated cores, to be measured beside ours where it is installed.

Its choice is `nova.virt.hardware.numa_fit_instance_to_host`. Its account of what is taken is a new host topology,
made by `numa_usage_from_instance_numa` of the same module: that is how its compute manager and its scheduler use
the two. Nova is loaded by name, since it is no dependency of this project.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from importlib import import_module, metadata
from typing import Any

_MIB_PER_CORE = 1024


def nova_version() -> str | None:
    """Return the version of Nova that is installed beside this program, or None."""
    try:
        return metadata.version("nova")
    except metadata.PackageNotFoundError:
        return None


class NovaHost:
    """An idle host as Nova sees it: `nodes` has the cores for dedicated vCPUs of each NUMA node; there is no SMT.

    The requests, each for two dedicated vCPUs, are made beforehand and used again in each round.
    """

    def __init__(self, nodes: Iterable[Iterable[int]]) -> None:
        self._hardware, objects = _modules()
        cells = [_cell(objects, number, set(cores)) for number, cores in enumerate(nodes)]
        self._topology = objects.NUMATopology(cells=cells)
        most = sum(len(cell.pcpuset) for cell in cells) // 2
        self._requests = [_request(objects) for _ in range(most + 1)]

    def fill_and_release(self) -> int:
        """Place guests until one is refused, then release them, all with Nova's own accounting; return how many."""
        account = self._hardware.numa_usage_from_instance_numa
        placed = []
        for request in self._requests:
            fitted = self._hardware.numa_fit_instance_to_host(self._topology, request, None)
            if fitted is None:
                break
            self._topology = account(self._topology, fitted)
            placed.append(fitted)
        for fitted in placed:
            self._topology = account(self._topology, fitted, free=True)
        return len(placed)

    def fill_and_release_in_place(self) -> int:
        """Do the same, but mark the cores in the host topology itself, which Nova does not: its choice alone counts."""
        cells = {cell.id: cell for cell in self._topology.cells}
        placed = []
        for request in self._requests:
            fitted = self._hardware.numa_fit_instance_to_host(self._topology, request, None)
            if fitted is None:
                break
            (guest,) = fitted.cells
            taken = cells[guest.id], set(guest.cpu_pinning.values())
            taken[0].pin_cpus(taken[1])
            placed.append(taken)
        for cell, cores in placed:
            cell.unpin_cpus(cores)
        return len(placed)


@cache
def _modules() -> tuple[Any, Any]:
    """Load Nova's hardware module and its objects, whose own deprecations are of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        objects = import_module("nova.objects")
        objects.register_all()
        return import_module("nova.virt.hardware"), objects


def _cell(objects: Any, number: int, cores: set[int]) -> Any:
    memory = len(cores) * _MIB_PER_CORE
    pages = objects.NUMAPagesTopology(size_kb=4, total=memory << 8, used=0, reserved=0)
    return objects.NUMACell(
        id=number,
        socket=number,
        cpuset=set(),
        pcpuset=cores,
        pinned_cpus=set(),
        siblings=[{core} for core in cores],
        cpu_usage=0,
        memory=memory,
        memory_usage=0,
        mempages=[pages],
    )


def _request(objects: Any) -> Any:
    cell = objects.InstanceNUMACell(id=0, cpuset=set(), pcpuset={0, 1}, memory=1, cpu_policy="dedicated")
    return objects.InstanceNUMATopology(cells=[cell])

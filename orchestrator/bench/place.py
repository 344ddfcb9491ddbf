"""`bench place`: exclusive placements per second, ours and, where it is installed, OpenStack Nova's.

A round fills an idle host with guests of two vCPUs until one is refused, then releases them all; each placement is
chosen, taken and given back within the time that counts. Hosts have no SMT and 32 cores a NUMA node; cores 0 and 1
are nobody's, for either contestant. Time is CPU time of this process, so that other load hardly counts.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from orchestrator.bench.nova import NovaHost, nova_version
from orchestrator.core.discovery import discover
from orchestrator.core.model import MIB, Architecture, GuestSpec, Mode, PayloadBoot
from orchestrator.core.placement import Placement, place_in
from orchestrator.core.poolindex import PoolIndex

SIZES = (64, 256, 1024)
"""The numbers of cores that are measured unless others are asked for."""

CORES_PER_NODE = 32
"""The size of a NUMA node of the synthetic hosts."""

_GUEST = GuestSpec(
    name="two",
    architecture=Architecture.X86_64,
    vcpus=2,
    memory=MIB,
    boot=PayloadBoot(payload="none"),
    mode=Mode.EXCLUSIVE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Placements per second on a host of `cores`, of which `guests` guests fill all that is nobody else's.

    Nova's is with its own accounting; `nova_in_place_per_second` is its choice alone, with the cheapest account
    that anyone could keep. All of Nova's, and the ratio of ours to Nova's, are None where it is not installed.
    """

    cores: int
    nodes: int
    guests: int
    ours_per_second: float
    nova_per_second: float | None
    nova_in_place_per_second: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceReport:
    """What was measured, and where: the CPU's name, Python's version and Nova's, None if it is not installed."""

    cpu: str
    python: str
    nova: str | None
    rates: tuple[Rate, ...]


def measure(sizes: Iterable[int] = SIZES, seconds: float = 1.0) -> PlaceReport:
    """Measure each size for at least `seconds` of CPU time and one round, contestant by contestant.

    Sizes are multiples of CORES_PER_NODE.
    """
    nova = nova_version()
    rates = tuple(_rate(cores, nova is not None, seconds) for cores in sizes)
    return PlaceReport(cpu=cpu_name(), python=platform.python_version(), nova=nova, rates=rates)


def describe(report: PlaceReport) -> dict[str, object]:
    """Return a report as plain JSON values."""
    machine = {"cpu": report.cpu, "python": report.python, "nova": report.nova}
    return {"machine": machine, "rates": [asdict(rate) for rate in report.rates]}


def fill_and_release(index: PoolIndex) -> int:
    """Place two-vCPU guests until one is refused, release them all, and return how many there were."""
    placed = []
    while isinstance(placement := place_in(index, _GUEST), Placement):
        index.take(placement.held)
        placed.append(placement)
    for placement in placed:
        index.release(placement.held)
    return len(placed)


def synthetic_pool(cores: int) -> PoolIndex:
    """Return the idle pool of a host of so many cores without SMT, CORES_PER_NODE a NUMA node."""
    nodes = {f"node/node{node}/cpulist": f"{cpus[0]}-{cpus[-1]}" for node, cpus in enumerate(_nodes(cores))}
    return PoolIndex(discover({"cpu/online": f"0-{cores - 1}", **nodes}))


def _rate(cores: int, with_nova: bool, seconds: float) -> Rate:
    index = synthetic_pool(cores)
    ours = _median_rate(lambda: fill_and_release(index), seconds)
    nova = in_place = None
    if with_nova:
        pool = [[core for core in cpus if core in index.pool] for cpus in _nodes(cores)]
        in_place = _median_rate(NovaHost(pool).fill_and_release_in_place, seconds)
        nova = _median_rate(NovaHost(pool).fill_and_release, seconds)
    return Rate(
        cores=cores,
        nodes=cores // CORES_PER_NODE,
        guests=len(index) // _GUEST.vcpus,
        ours_per_second=ours,
        nova_per_second=nova,
        nova_in_place_per_second=in_place,
        ratio=None if nova is None else ours / nova,
    )


def _median_rate(play: Callable[[], int], seconds: float) -> float:
    """Return the median over rounds of how many placements each made per second of CPU time."""
    rates: list[float] = []
    end = time.process_time() + seconds
    while not rates or time.process_time() < end:
        start = time.process_time()
        placements = play()
        rates.append(placements / (time.process_time() - start))
    return median(rates)


def _nodes(cores: int) -> Sequence[range]:
    return [range(first, first + CORES_PER_NODE) for first in range(0, cores, CORES_PER_NODE)]


def cpu_name() -> str:
    """Return what this machine's CPU is called."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

"""`orchestrator bench all`: all measurements in one process, one after the other, and what is made of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.bench.handover import BARE as BARE_QMP
from orchestrator.bench.handover import ENGINE, HandoverReport
from orchestrator.bench.handover import LIBVIRT as BY_LIBVIRT
from orchestrator.bench.handover import Extent as HandoverExtent
from orchestrator.bench.idle import Idle
from orchestrator.bench.place import PlaceReport, cpu_name
from orchestrator.bench.place import measure as measure_place
from orchestrator.bench.start import BARE, CLONE, LIBVIRT, STAGED, StartReport
from orchestrator.bench.start import Extent as StartExtent
from orchestrator.bench.tick import TickReport
from orchestrator.bench.tick import measure as measure_tick
from orchestrator.bench.whole import Extent, Figure, Results, compared, from_json, to_json
from orchestrator.core.policy import Policy
from orchestrator.errors import UsageError
from orchestrator.wiring import handover, idle, starting
from orchestrator.wiring.handover import Tell
from orchestrator.wiring.report import check_file, write_file
from orchestrator.wiring.site import load_policy, load_topology, read_file

__all__ = ["Results", "compared", "load_baseline", "measure", "to_json", "write"]

WHOLE = Extent()
_T = TypeVar("_T")
_ROUNDS = 7
_MIB = 2**20
_CALL = "import sys; from orchestrator.cli.main import main; main(sys.argv[1:])"


def load_baseline(path: Path | None) -> Results | None:
    """Return the results of another run: those in this file, else those that come with the program, if any do."""
    shipped = resources.files("orchestrator.bench").joinpath("baseline.json")
    if path is None and not shipped.is_file():
        return None
    text = shipped.read_bytes() if path is None else read_file(path)
    try:
        return from_json(json.loads(text))
    except ValueError as error:
        raise UsageError(f"{path}: {error}; --baseline takes what `bench all --to DIR` has written") from None


async def measure(policy_file: Path | None, *, borrow: bool, tell: Tell, extent: Extent = WHOLE) -> Results:
    """Measure everything, ten minutes at most on an idle machine. Raises as `handover.measure`."""
    policy, began = load_policy(policy_file), time.monotonic()
    handover.require_pool_or_loan(load_topology(policy), borrow=borrow)
    figures: list[Figure] = []
    load = os.getloadavg()[0]
    tell("commands", 0.0)
    figures += _commands()
    tell("placements", 0.03)
    place = _apart(partial(measure_place, seconds=extent.computing))
    tell("decisions", 0.06)
    figures += [*_placements(place), *_decisions(measure_tick(seconds=extent.computing))]

    def part(first: float, last: float) -> Tell:
        return lambda what, done: tell(what, first + (last - first) * done)

    turns = HandoverExtent(rounds=extent.handovers, seconds=extent.seconds, slices=extent.slices, guests=extent.crowd)
    handed = await handover.measure(policy, borrow=borrow, extent=turns, tell=part(0.1, 0.35))
    figures += _handovers(handed)
    figures += await _starts(policy, extent, borrow=borrow, tell=part(0.35, 0.65))
    idled = await idle.measure(policy, borrow=borrow, tell=part(0.65, 1.0), counts=extent.counts, seconds=extent.idle)
    figures += _idle(idled)
    machine = _machine(handed, place, borrow=borrow, load=load)
    skipped = () if place.nova else ("Nova is not installed here, `pip install nova` brings it: no ratio to it",)
    return Results(machine=machine, seconds=time.monotonic() - began, figures=tuple(figures), skipped=skipped)


def _apart(act: Callable[[], _T]) -> _T:
    """Do it in a process of its own: what Nova brings would make each start after it slower, which forks this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(act).result()


def write(results: Results, directory: Path) -> list[Path]:
    """Write the results and their plots into a directory, made if it is not there; return the files."""
    from orchestrator.page import plots

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be made: {error.strerror}; name another directory") from None
    useful = [(float(name.split()[4]), value) for name, value in _named(results, "useful pool time at ")]
    ratios = [(f"{each.name} : {each.rival}"[:48], each.ratio) for each in results.figures if each.ratio is not None]
    written = {
        "results.json": json.dumps(to_json(results), indent=2).encode() + b"\n",
        "slices.svg": plots.lines("Useful pool time", "slice in ms", "percent", {"guests on it": useful}),
        "ratios.svg": plots.bars("Beside rivals", "ratio, below 1 is in our favour", ratios),
        "idle.svg": plots.bars("The scheduler while nothing happens", "percent of core 0", _named(results, "idle CPU")),
    }
    for name, content in written.items():
        check_file(directory / name, "results")
        write_file(content, directory / name)
    return [directory / name for name in written]


def _named(results: Results, beginning: str) -> list[tuple[str, float]]:
    return [(each.name, each.value) for each in results.figures if each.name.startswith(beginning)]


def _commands() -> Iterator[Figure]:
    for command in ("--help", "ps"):
        times = []
        for _ in range(_ROUNDS):
            start = time.monotonic()
            subprocess.run([sys.executable, "-c", _CALL, command], check=True, stdout=subprocess.DEVNULL)
            times.append((time.monotonic() - start) * 1000)
        yield Figure(name=f"command {command}", value=statistics.median(times), unit="ms")


def _placements(report: PlaceReport) -> Iterator[Figure]:
    for rate in report.rates:
        rival = "Nova" if rate.nova_per_second is not None else ""
        name = f"placements on {rate.cores} cores"
        yield Figure(
            name=name, value=rate.ours_per_second, unit="/s", more=True, rival=rival, theirs=rate.nova_per_second
        )


def _decisions(report: TickReport) -> Iterator[Figure]:
    for tick in report.ticks:
        name = f"decision, {tick.waiting} wait"
        yield Figure(name=name, value=tick.apart.mean, unit="us", rival="sorting all", theirs=tick.sorting.mean)


def _handovers(report: HandoverReport) -> Iterator[Figure]:
    ours = report.ways[ENGINE]
    for rival, way in (("bare QMP", BARE_QMP), ("libvirt", BY_LIBVIRT)):
        theirs = report.ways[way]
        yield Figure(name=f"hand-over beside {rival}", value=ours.median, unit="ms", rival=rival, theirs=theirs.median)
    yield Figure(name="hand-over, 99 in 100", value=ours.p99, unit="ms")
    for use in report.uses:
        yield Figure(name=f"useful pool time at {use.slice_ms:g} ms", value=use.useful * 100, unit="%", more=True)


async def _starts(policy: Policy, extent: Extent, *, borrow: bool, tell: Tell) -> list[Figure]:
    rounds, count = StartExtent(extent.starts, extent.linux_rounds, extent.clones), extent.crowd
    report = await starting.measure(policy, borrow=borrow, extent=rounds, tell=tell)
    ours, bare = await starting.measure_crowd(policy, borrow=borrow, count=count, tell=tell)
    crowd = Figure(name=f"{count} mixed guests at once", value=ours, unit="s", rival="bare QEMU", theirs=bare)
    return [*_start_figures(report), crowd]


def _start_figures(report: StartReport) -> Iterator[Figure]:
    for kind in report.kinds:
        for way, rival, theirs in (
            (LIBVIRT, "bare QEMU", BARE),
            (CLONE, "libvirt", LIBVIRT),
            (STAGED, "libvirt", LIBVIRT),
        ):
            name = f"{kind.name}, {'cold start' if way is LIBVIRT else way}"
            yield Figure(name=name, value=kind.ways[way], unit="ms", rival=rival, theirs=kind.ways[theirs])
    memory = report.memory
    name = f"memory of {memory.guests} {memory.name} clones"
    yield Figure(name=name, value=memory.clones / _MIB, unit="MiB", rival="cold ones", theirs=memory.cold / _MIB)


def _idle(found: list[Idle]) -> Iterator[Figure]:
    for each in found:
        yield Figure(name=f"idle CPU, {each.guests} guests", value=each.cpu * 100, unit="% of core 0")
        yield Figure(name=f"idle memory, {each.guests} guests", value=each.memory / _MIB, unit="MiB")


def _machine(report: HandoverReport, place: PlaceReport, *, borrow: bool, load: float) -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "qemu": report.machine.qemu,
        "libvirt": report.machine.libvirt,
        "accelerator": report.machine.accelerator,
        "nova": place.nova,
        "realtime": report.machine.realtime,
        "borrowed_service_core": borrow,
        "guest_cores": list(report.cores),
        "load_before": round(load, 2),
        "at": int(time.time()),
    }

"""What is simulated: a host, who comes when and for how long, what an act costs, and what fails.

Values, and the arrivals that follow from them. No clock and no file is touched; all chance comes from the scenario's
seed, so that the same scenario is the same story every time. Times are whole nanoseconds from the beginning.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.discovery import discover
from orchestrator.core.durations import Duration, Spread
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
from orchestrator.core.policy import Policy
from orchestrator.core.topology import Topology

DEFAULT_WEIGHT = 100
"""The weight of an owner of whom the scenario says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostShape:
    """A host of `cpus` logical processors, the first two kept from guests as everywhere.

    Every physical core has as many `threads`, every NUMA node as many physical cores.
    """

    cpus: int
    nodes: int = 1
    threads: int = 1

    def topology(self, policy: Policy) -> Topology:
        """Return it as discovery finds it, with the policy's reserved cores. Growth: the CPUs, beside sorting.

        Processors are numbered as Linux does on x86: first one thread of every core, node by node, then their siblings.
        """
        cores = self.cpus // self.threads
        files = {"cpu/online": format_cpulist(range(self.cpus)), "node/online": format_cpulist(range(self.nodes))}
        for core in range(cores):
            siblings = range(core, self.cpus, cores)
            for cpu in siblings:
                files[f"cpu/cpu{cpu}/topology/core_id"] = str(core)
                files[f"cpu/cpu{cpu}/topology/thread_siblings_list"] = format_cpulist(siblings)
        for node in range(self.nodes):
            members = [cpu for cpu in range(self.cpus) if cpu % cores * self.nodes // cores == node]
            files[f"node/node{node}/cpulist"] = format_cpulist(members)
        return discover(files, policy.cores.reserved_cores())


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """How long the simulated hypervisor takes: to launch a guest, to stop its vCPUs, to move threads, to go on."""

    start: Spread = field(default=Spread.parse("200 ms"))
    stop: Spread = field(default=Spread.parse("1 ms to 3 ms"))
    repin: Spread = field(default=Spread.parse("1 ms"))
    resume: Spread = field(default=Spread.parse("1 ms to 2 ms"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """An owner and the weight with which its guests, taken together, share with those of others."""

    name: str
    weight: int = DEFAULT_WEIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestGroup:
    """`count` guests of one kind: one is called `name`, several ``name-1``, ``name-2`` ...

    With several `owners` they are dealt in turn to ``owner-1``, ``owner-2`` ... The first arrives at `arrive`, each
    further one `every` after the one before (all at once without it); each leaves `stay` after its arrival, or never.
    """

    name: str
    owner: str
    count: int = 1
    owners: int = 1
    vcpus: int = 1
    mode: Mode = Mode.SHARED
    weight: int = DEFAULT_WEIGHT
    priority: int = 0
    emulator: EmulatorThreads = EmulatorThreads.SHARE
    numa: NumaWish = NumaWish.PREFER
    smt: SmtWish = SmtWish.PREFER
    arrive: Duration = field(default=Duration(0))
    every: Spread | None = None
    stay: Spread | None = None

    def guest(self, number: int) -> str:
        """Return the name of a guest, counted from 1."""
        return self.name if self.count == 1 else f"{self.name}-{number}"

    def owner_of(self, number: int) -> str:
        """Return the owner of a guest, counted from 1."""
        return self.owner if self.owners == 1 else f"{self.owner}-{(number - 1) % self.owners + 1}"


class FailureKind(StrEnum):
    """`crash`: the QEMU process dies. `hang`: the guest does not confirm its next stop, until it is killed."""

    CRASH = "crash"
    HANG = "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What happens to a guest at a moment, if it is there then."""

    guest: str
    at: Duration
    kind: FailureKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One simulation. What is not said of an owner is as its class says."""

    title: str
    duration: Duration
    seed: int = 1
    host: HostShape
    costs: Costs = field(default_factory=Costs)
    owners: tuple[Owner, ...] = ()
    groups: tuple[GuestGroup, ...]
    failures: tuple[Failure, ...] = ()
    policy: Policy = field(default_factory=Policy)


class Arrival(NamedTuple):
    """A guest that comes at `at` and is to leave at `leaves`; None is never."""

    at: int
    guest: str
    owner: str
    spec: GuestSpec
    priority: int
    leaves: int | None


def arrivals(scenario: Scenario) -> Iterator[Arrival]:
    """Yield all that arrive before the end: by moment, then in the order of the groups, then by number.

    Guests are made as they are asked for. Growth: logarithmic in the groups for each.
    """
    streams = (_arrivals(group, scenario.seed, scenario.duration) for group in scenario.groups)
    return heapq.merge(*streams, key=lambda arrival: arrival.at)  # stable: at one moment, group by group


def _arrivals(group: GuestGroup, seed: int, duration: int) -> Iterator[Arrival]:
    # A stream of chance for each question: how long guests stay says nothing about when they come.
    coming, staying = (random.Random(f"{seed}/{group.name}/{what}") for what in ("every", "stay"))
    kind = _spec(group)
    at = int(group.arrive)
    for number in range(1, group.count + 1):
        if number > 1 and group.every is not None:
            at += draw(group.every, coming)
        if at >= duration:
            return
        guest = group.guest(number)
        leaves = None if group.stay is None else at + draw(group.stay, staying)
        yield Arrival(at, guest, group.owner_of(number), replace(kind, name=guest), group.priority, leaves)


def draw(spread: Spread, chance: random.Random) -> int:
    """Return a duration of a spread, in nanoseconds; every one of them is as likely."""
    return chance.randint(spread.least, spread.most)


def _spec(group: GuestGroup) -> GuestSpec:
    return GuestSpec(
        name=group.name,
        architecture=Architecture.X86_64,
        vcpus=group.vcpus,
        memory=MIB,
        boot=PayloadBoot(payload="none"),
        mode=group.mode,
        weight=group.weight,
        emulator=group.emulator,
        numa=group.numa,
        smt=group.smt,
    )

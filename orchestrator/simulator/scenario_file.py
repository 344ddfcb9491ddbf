"""Scenario files: TOML text -> `Scenario`. No file is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from orchestrator import policy_file
from orchestrator.core.arch import TRAITS
from orchestrator.core.durations import Duration, Spread
from orchestrator.core.model import Architecture
from orchestrator.core.policy import Policy
from orchestrator.errors import Fault
from orchestrator.simulator.scenario import Failure, GuestGroup, HostShape, Owner, Scenario
from orchestrator.toml_tables import Check, Schema, load, read, shown

MOST_CPUS = 4096
MOST_GUESTS = 1_000_000
MOST_TITLE = 100  # characters

_LEAST_CPUS = 3  # two are kept from guests
_MOST_THREADS = 8  # of a physical core: POWER's
_MOST_WEIGHT = 10_000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,46}[a-z0-9])?")  # leaves room for a number within a guest's 63
_NUMBERED = re.compile(r"(.+)-([1-9][0-9]{0,6})")


def parse_scenario(text: bytes, file: str) -> Scenario:
    """Read a scenario; InvalidFileError lists every fault of the file, `file` is what messages call it."""
    return read(Scenario, load(text, file), _SCHEMA)


def _within(key: str, least: int, most: int) -> Check:
    def check(value: int) -> Iterator[Fault]:
        if not least <= value <= most:
            yield Fault(f"{shown(value)} is not possible; it is {least} to {most}", key)

    return check


def _name(key: str) -> Check:
    def check(name: str) -> Iterator[Fault]:
        if not _NAME.fullmatch(name):
            allowed = "1 to 48 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last"
            yield Fault(f"{shown(name)} is not possible; it is {allowed}", key)

    return check


def _check_title(title: str) -> Iterator[Fault]:
    if not title.strip() or not title.isprintable() or len(title) > MOST_TITLE:
        yield Fault(f"{shown(title)} is no title; it is 1 to {MOST_TITLE} printable characters", "title")


def _check_duration(duration: Duration) -> Iterator[Fault]:
    if not duration:
        yield Fault("nothing happens in no time; write how long to simulate, like '10 min'", "duration")


def _check_shape(cpus: int, nodes: int, threads: int) -> Iterator[Fault]:
    if nodes > 0 and 0 < threads <= _MOST_THREADS and cpus % (nodes * threads):
        equal = f"{nodes} nodes of as many cores with as many threads, {threads}"
        yield Fault(f"{cpus} do not make {equal}; write a multiple of {nodes * threads}", "cpus")


def _check_pool(host: HostShape, policy: Policy) -> Iterator[Fault]:
    if not host.topology(policy).pool:
        yield Fault("no core is left to guests: 0, 1, their siblings and what the policy reserves are all", "host.cpus")


def _check_dealt(count: int, owners: int) -> Iterator[Fault]:
    if not 1 <= owners <= max(1, count):
        yield Fault(f"{shown(owners)} owners cannot share {count} guests; write 1 to {count}", "owners")


def _check_stay(stay: Spread | None) -> Iterator[Fault]:
    if stay is not None and not stay.least:
        yield Fault("a guest that leaves as it comes is none; write more than 0 s", "stay")


def _check_groups(groups: tuple[GuestGroup, ...]) -> Iterator[Fault]:
    if not groups:
        yield Fault("missing; write at least one group of guests under a line [[guests]]", "guests")
    yield from _check_unique("guests", "name", [group.name for group in groups])
    counts = _counts(groups)
    for index, group in enumerate(groups):
        if group.count == 1 and (twin := _numbered(group.name, counts)):
            yield Fault(f"group {shown(twin)} has a guest of this name", f"guests[{index}].name")


def _check_owners(owners: tuple[Owner, ...], groups: tuple[GuestGroup, ...]) -> Iterator[Fault]:
    yield from _check_unique("owner", "name", [owner.name for owner in owners])
    there = {group.owner_of(number) for group in groups for number in range(1, group.owners + 1)}
    for index, owner in enumerate(owners):
        if owner.name not in there:
            yield Fault(f"no guest belongs to {shown(owner.name)}", f"owner[{index}].name")


def _check_failures(
    duration: Duration, groups: tuple[GuestGroup, ...], failures: tuple[Failure, ...]
) -> Iterator[Fault]:
    counts = _counts(groups)
    singles = {group.name for group in groups if group.count == 1}
    for index, failure in enumerate(failures):
        if failure.guest not in singles and not _numbered(failure.guest, counts):
            known = "its group's name, with -1, -2 ... where there are several"
            yield Fault(f"there is no guest {shown(failure.guest)}; it is {known}", f"failure[{index}].guest")
        if failure.at >= duration:
            yield Fault(f"{failure.at} is not before the end, {duration}", f"failure[{index}].at")


def _check_unique(table: str, key: str, names: Iterable[str]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Fault(f"{shown(name)} is there already", f"{table}[{index}].{key}")
        seen.add(name)


def _counts(groups: Iterable[GuestGroup]) -> dict[str, int]:
    """Return how many guests each group has that numbers them."""
    return {group.name: group.count for group in groups if group.count > 1}


def _numbered(guest: str, counts: dict[str, int]) -> str:
    """Return the group that has a guest of this name among its numbered ones, else nothing."""
    match = _NUMBERED.fullmatch(guest)
    return match[1] if match and int(match[2]) <= counts.get(match[1], 0) else ""


_SCHEMA = Schema(
    keys={
        (Scenario, "owners"): "owner",
        (Scenario, "groups"): "guests",
        (Scenario, "failures"): "failure",
    },
    words={
        **policy_file.SCHEMA.words,
        Spread: "a duration with its unit, like '100 ms', or two, like '1 ms to 3 ms'",
    },
    checks={
        **policy_file.SCHEMA.checks,
        Scenario: (
            (("title",), _check_title),
            (("duration",), _check_duration),
            (("host", "policy"), _check_pool),
            (("groups",), _check_groups),
            (("owners", "groups"), _check_owners),
            (("duration", "groups", "failures"), _check_failures),
        ),
        HostShape: (
            (("cpus",), _within("cpus", _LEAST_CPUS, MOST_CPUS)),
            (("nodes",), _within("nodes", 1, MOST_CPUS)),
            (("threads",), _within("threads", 1, _MOST_THREADS)),
            (("cpus", "nodes", "threads"), _check_shape),
        ),
        Owner: ((("name",), _name("name")), (("weight",), _within("weight", 1, _MOST_WEIGHT))),
        GuestGroup: (
            (("name",), _name("name")),
            (("owner",), _name("owner")),
            (("count",), _within("count", 1, MOST_GUESTS)),
            (("count", "owners"), _check_dealt),
            (("vcpus",), _within("vcpus", 1, TRAITS[Architecture.X86_64].most_vcpus)),
            (("weight",), _within("weight", 1, _MOST_WEIGHT)),
            (("stay",), _check_stay),
        ),
    },
    partials=policy_file.SCHEMA.partials,
)

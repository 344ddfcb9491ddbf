"""Quotas: what guests use, what a policy lets them use, and every rule by which one more is too much.

Pure: usage, limits and a request go in, reasons come out. A rule belongs to a *party*: a user by himself, the members
of a group together, or everybody. Counts are of the guests in the scheduler's books, so whoever is admitted counts from
that moment on, before he is started; times are those of `core.account`. Growth: linear in the guests, for each request;
nothing is counted where nothing is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

from orchestrator.core.account import TimeUsed
from orchestrator.core.durations import about
from orchestrator.core.limits import Limits
from orchestrator.core.model import GuestSpec, Mode, Size
from orchestrator.core.placement import Reason
from orchestrator.core.policy import Policy
from orchestrator.core.snapshot import Known, Standing


@dataclass(frozen=True, slots=True)
class Usage:
    """What some guests use together, or one would; what each field counts is told at `limits.Limits`."""

    guests: int = 0
    running: int = 0
    vcpus: int = 0
    exclusive_cores: int = 0
    memory: int = 0
    disk: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


class Party(NamedTuple):
    """Whom limits are for: a word for people, the limits, and whether a user is one of them."""

    name: str
    limits: Limits
    has: Callable[[str], bool]


def usage(known: Known) -> Usage:
    """Return what one guest in the books uses."""
    running = known.standing not in (Standing.PAUSED, Standing.PAUSING)
    return _of(known.spec, len(known.placement.vcpus), len(known.kept), known.disk, running=running)


def demand(spec: GuestSpec, kept: int, disk: int) -> Usage:
    """Return what a guest will use; `kept` is how many cores it would keep, `disk` what its disks can grow to."""
    return _of(spec, spec.vcpus, kept, disk, running=True)


def _of(spec: GuestSpec, vcpus: int, kept: int, disk: int, *, running: bool) -> Usage:
    exclusive = kept if spec.mode is Mode.EXCLUSIVE else 0
    return Usage(1, int(running), vcpus, exclusive, spec.memory, disk)


def parties(policy: Policy, owner: str) -> Iterator[Party]:
    """Yield those whose limits a guest of this owner counts against, where they have any."""
    found = [Party(owner, policy.limits(owner), lambda other: other == owner)]
    for name in policy.groups(owner):
        group = policy.group[name]
        limits = Limits(**{part.name: getattr(group, part.name) for part in fields(Limits)})
        found.append(Party(f"group {name}", limits, frozenset(group.members or ()).__contains__))
    found.append(Party("all", policy.total, lambda _: True))
    return (party for party in found if party.limits != _NO_LIMITS)


def over(policy: Policy, owner: str, wanted: Usage, guests: Iterable[Known]) -> Iterator[Reason]:
    """Yield every count that would be exceeded, were `wanted` added to the guests."""
    for party in parties(policy, owner):
        used = sum((usage(known) for known in guests if party.has(known.owner)), Usage())
        for part in fields(Usage):
            limit, more, had = getattr(party.limits, part.name), getattr(wanted, part.name), getattr(used, part.name)
            if limit is not None and more and had + more > limit:
                yield _reason(part.name, party.name, more, limit, had)


def over_time(policy: Policy, owner: str, pool: int, spent: Mapping[str, TimeUsed]) -> Iterator[Reason]:
    """Yield every time quota by which an owner can start nothing now; `pool` is the number of the pool's cores."""
    for party in parties(policy, owner):
        used = time_of(party, spent)
        for rule, limit, had in time_limits(party.limits, policy.quotas.share_window, pool, used):
            if had >= limit:
                yield Reason(f"{rule} of {party.name}", "some", _left(limit, had), about(limit))
        starts = party.limits.starts_per_hour
        if starts is not None and used.starts >= starts:
            yield Reason(f"starts per hour of {party.name}", "1", str(max(0, starts - used.starts)), str(starts))


def kept_for_others(kept: Mapping[str, int], owner: str, guests: Iterable[Known]) -> int:
    """Return how many cores are to be left for the exclusive guests of others, beside those that they have."""
    wanted = {name: cores for name, cores in kept.items() if name != owner}
    for known in guests if wanted else ():
        if known.exclusive and known.owner in wanted:
            wanted[known.owner] -= len(known.kept)
    return sum(max(0, cores) for cores in wanted.values())


def time_of(party: Party, spent: Mapping[str, TimeUsed]) -> TimeUsed:
    """Return what the members of a party have used of time together."""
    return sum((used for owner, used in spent.items() if party.has(owner)), TimeUsed())


def time_limits(limits: Limits, window: int, pool: int, used: TimeUsed) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each core time that is limited, the limit, and what is used of it, in core-nanoseconds."""
    if limits.core_time_per_day is not None:
        yield "core time per day", int(limits.core_time_per_day), used.today
    if limits.pool_share is not None:
        yield f"pool share within {about(window)}", limits.pool_share * window * pool // 100, used.in_window


def is_quota(reason: Reason) -> bool:
    """Whether room may come back for what this rule refuses, when guests end or time passes."""
    return reason.limit is not None


def _reason(name: str, party: str, wanted: int, limit: int, used: int) -> Reason:
    said: Callable[[int], str] = (lambda value: str(Size(value))) if name in _SIZES else str
    rule = f"{name.replace('_', ' ')} of {party}"
    return Reason(rule, said(wanted), said(max(0, limit - used)), said(limit))


def _left(limit: int, used: int) -> str:
    return about(max(0, limit - used))


_SIZES = ("memory", "disk")
_NO_LIMITS = Limits()

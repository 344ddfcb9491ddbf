"""Which guests and values a policy wants, what there is, and what to do about the difference.

Values only; who makes the changes is `reconcile`. Everything is linear in what it is given, beside sorting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.lifecycle import State
from orchestrator.core.model import GuestSpec, Mode


class What(StrEnum):
    """What is to be done about a guest.

    A blocked one cannot be had, since what is in the way is not a policy's; an unscheduled one is shared, where nobody
    gives it turns.
    """

    STOP = "stop"
    REPLACE = "replace"
    START = "start"
    BLOCKED = "blocked"
    UNSCHEDULED = "unscheduled"


IDLE = (What.BLOCKED, What.UNSCHEDULED)
"""What leaves everything as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """A guest that is to run, and whose it is."""

    spec: GuestSpec
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A guest that is known, without a process if it is stopped.

    `by_policy` is of one that a policy run has started, `interrupted` of an exclusive one whose start was cut short: it
    stands still, and has run nothing yet.
    """

    spec: GuestSpec
    owner: str
    state: State
    by_policy: bool
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do about the guest of this name and owner, and why."""

    what: What
    guest: str
    owner: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} {self.guest} of {self.owner}: {self.why}"

    def describe(self) -> dict[str, object]:
        """Return it in JSON's types."""
        return {"what": self.what, "guest": self.guest, "owner": self.owner, "why": self.why}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the policy that becomes another one, by its dotted key; None where it is not there."""

    key: str
    before: object
    after: object

    def __str__(self) -> str:
        return f"set {self.key}: {_told(self.before)} -> {_told(self.after)}"

    def describe(self) -> dict[str, object]:
        """Return it in JSON's types."""
        return {"key": self.key, "before": self.before, "after": self.after}


def changes(desired: Iterable[Desired], present: Iterable[Present], *, rotates: bool = True) -> tuple[Change, ...]:
    """Return what makes the guests that are there those that are desired, in the order in which it is to be done.

    No name is desired twice. What goes away makes room before others come; the exclusive and the wide choose first.
    Only what a policy run has started is stopped or replaced. Where nothing `rotates` guests, shared ones cannot be
    started. A second call with what the changes lead to returns none but the blocked.
    """
    there = {guest.spec.name: guest for guest in present}
    wanted = {guest.spec.name: guest for guest in desired}
    found = [(change, wanted[change.guest].spec) for change in _about_wanted(wanted, there, rotates=rotates)]
    ends = [
        Change(What.STOP, name, guest.owner, "a policy run has started it, and the policy does not list it any more")
        for name, guest in sorted(there.items())
        if name not in wanted and guest.by_policy and guest.state not in (State.STOPPED, State.STOPPING)
    ]
    found.sort(key=lambda pair: (_ORDER[pair[0].what], *_harder_first(pair[1])))
    return (*ends, *(change for change, _ in found))


_ORDER = {what: number for number, what in enumerate(What)}


def _harder_first(spec: GuestSpec) -> tuple[bool, int, str]:
    return spec.mode is not Mode.EXCLUSIVE, -spec.cores_needed, spec.name


def _about_wanted(wanted: Mapping[str, Desired], there: Mapping[str, Present], *, rotates: bool) -> Iterator[Change]:
    for name, guest in wanted.items():
        what, why = _needed(guest, there.get(name))
        if what is None:
            continue
        if what is not What.BLOCKED and guest.spec.mode is Mode.SHARED and not rotates:
            what, why = (
                What.UNSCHEDULED,
                "it is shared, and no scheduler runs that gives it turns; `orchestrator serve` does",
            )
        yield Change(what, name, guest.owner, why)


def _needed(guest: Desired, found: Present | None) -> tuple[What | None, str]:
    """Return what is to be done about a guest that is desired, and why."""
    if found is None:
        return What.START, "it is not there"
    if found.state is State.STOPPED and (found.by_policy or found.owner == guest.owner):
        return What.START, "it has ended"
    if found.state is State.STOPPED:
        return What.BLOCKED, f"{found.owner}'s guest of this name has ended, and keeps the name until it is removed"
    differs = _difference(guest, found)
    if differs and not found.by_policy:
        return What.BLOCKED, f"{found.owner} runs another guest of this name, which no policy run has started"
    return What.REPLACE if differs else None, differs


def _difference(guest: Desired, found: Present) -> str:
    """Say in what a guest that is there is not the one that is desired."""
    if found.owner != guest.owner:
        return f"it is {found.owner}'s"
    if found.spec != guest.spec:
        return "it runs by another definition"
    return "a start of it was interrupted" if found.by_policy and found.interrupted else ""


def settings(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[Setting, ...]:
    """Return the values in which two policies differ, given as tables; by key."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return tuple(Setting(key, old.get(key), new.get(key)) for key in keys)


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted key and value of each value in a table, the tables in arrays by number."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _leaves(each, f"{key}[{number}]")
    else:
        yield key, value


def _told(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "(not set)" if value is None else "(empty)" if value == "" else str(value)

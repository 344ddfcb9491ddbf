"""Who takes part in the rotation: guests, grouped by owner within a priority class, and where each stands in line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from orchestrator.core.shares import ALL, Lines, Share
from orchestrator.core.sharing import Run, Turn


class State(Enum):
    """What a member is doing; one that is away is blocked by its user or was removed."""

    AWAY = "away"
    WAITING = "waiting"
    RUNNING = "running"


# Names of their own: a member of an enumeration takes longer to look up than a function to call.
AWAY, WAITING, RUNNING = State


@dataclass(slots=True, eq=False, kw_only=True)
class Member(Share):
    """A shared guest and its place in the rotation.

    `need` is in units. While it waits: `place` in the order of waits, `since` when, `due` from when it goes before
    all others, `period` the time in which a fair rotation comes round to it, as of the state of weights `weighed`,
    `latest` the promise (None: wider than the pool). While it runs: `started`, `until` the end of its slice, `floor`
    the end of its minimum run, `paid_to` the moment up to which its time is paid. `units` and `cores` are those it
    had last, `terms` and `entry` say where `Turns` keeps it, `ripens` when `Order` looks whether it is due.
    """

    id: str
    width: int
    need: int
    account: Account
    state: State = AWAY
    place: int = 0
    since: int = 0
    due: int = 0
    period: int = 0
    weighed: int = 0
    ripens: int | None = None
    latest: int | None = None
    started: int = 0
    until: int = 0
    floor: int = 0
    paid_to: int = 0
    units: int = 0
    cores: tuple[int, ...] = ()
    terms: tuple[int, bool, int, int] = (0, False, 0, 0)
    entry: int = 0

    def rank(self, now: int) -> tuple[int, ...]:
        """Return the sort key of the order in which waiting guests are served, if they fit."""
        if self.due <= now:
            return (0, self.place)
        account = self.account
        return (1, -account.tier.priority, account.tag, account.index, self.tag, self.place)

    def turn(self) -> Turn:
        """Return the turn that it is taking."""
        return Turn(self.id, self.cores, self.started, self.until)

    def run(self) -> Run:
        """Return the turn that it is to begin."""
        assert self.latest is not None  # who fits has a promise
        return Run(self.id, self.cores, self.until, self.since, self.latest)


@dataclass(slots=True)
class Room:
    """What is kept for a head: from `at` on it has its units, and `spare` units are over at any time.

    `due` and `priority` are the head's; who is of a lower class gives way to it after the minimum run.
    """

    at: int
    spare: int
    due: bool
    priority: int


def _in_account(member: Member, _: int, tag: int, place: int) -> int | None:
    return tag if place == member.place and tag == member.tag and member.state is WAITING else None


def in_due(member: Member, _: int, place: int, __: int) -> int | None:
    """Check an entry of the line of due members."""
    return place if place == member.place and member.state is WAITING else None


def _in_tier(account: Account, line: int, tag: int, _: int) -> int | None:
    if account.listed.get(line) != tag:
        return None
    if line not in account.waiting and not (line == ALL and account.waiting):
        del account.listed[line]
        return None
    if account.tag != tag:
        account.listed[line] = account.tag
    return account.tag


@dataclass(slots=True, eq=False, kw_only=True)
class Account(Share):
    """One owner within one priority class.

    `load` is the weight of its guests that run or wait, `waiting` how many wait for each number of units, `listed`
    the tag under which it stands in the class's line for that number.
    """

    owner: str
    index: int
    tier: Tier
    load: int = 0
    front: int = 0
    waiting: dict[int, int] = field(default_factory=dict)
    listed: dict[int, int] = field(default_factory=dict)
    lines: Lines[Member] = field(default_factory=lambda: Lines(_in_account))

    def list_in_tier(self, line: int) -> None:
        """Stand in a line of the class no later than the present tag demands; who stands too early moves by itself."""
        listed = self.listed.get(line)
        if listed is None or listed > self.tag:
            self.listed[line] = self.tag
            self.tier.lines.push(line, self.tag, self.index, self)


@dataclass(slots=True, eq=False, kw_only=True)
class Tier:
    """One priority class; `load` is the weight of its owners that have a guest running or waiting.

    `burden` is that of the classes above it as well; `widest` the most units that a guest of it ever needed.
    """

    priority: int
    load: int = 0
    burden: int = 0
    front: int = 0
    widest: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    lines: Lines[Account] = field(default_factory=lambda: Lines(_in_tier))

    def first(self, limit: int) -> Member | None:
        """Return the first in order of those that wait for at most `limit` units."""
        account = self.lines.top(ALL) if limit >= self.widest else self.lines.first(limit)
        return account.lines.first(limit) if account is not None else None

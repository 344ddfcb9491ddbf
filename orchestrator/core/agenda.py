"""What a policy plans: values that differ at times, cores that are reserved, guests that are to run.

Values only; `core.windows` says what holds when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_type_hints

from orchestrator.core.durations import Duration
from orchestrator.core.times import Cron, Moment

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredGuest:
    """A guest that is to run: `definition` is a path of its file, `owner` whose it is, else whose the policy is run as.

    `count` of them are kept, numbered if there is more than one.
    """

    definition: str
    count: int = 1
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmPool:
    """Clones of a template that are kept staged, `count` of them, for its owner.

    Without an `owner`, that is the one user who has a template of this name.
    """

    template: str
    count: int = 1
    owner: str | None = None


class Change(StrEnum):
    """What becomes of guests that a change of the rules leaves where these do not allow them any more.

    `move` has exclusive guests move together while they run, where that leaves more room to others; `drain` stops those
    that would not be let in any more, the youngest first, each with its grace and told why; `leave` lets them be, so
    that the rules only hold for what is started or resumed. Shared guests take their turns wherever there are cores.
    """

    MOVE = "move"
    DRAIN = "drain"
    LEAVE = "leave"


class Overrides(tuple[tuple[tuple[str, ...], object], ...]):
    """Typed values of a policy by their key paths (``cores.shared_floor``), to be had in place of what it has there.

    An array of tables adds to that of the policy.
    """

    __slots__ = ()

    def apply(self, policy: T) -> T:
        """Return a policy, which is a tree of dataclasses, with these values. Growth: the values."""
        for path, value in self:
            policy = _with(policy, path, value)
        return policy


NOTHING = Overrides()
"""No value is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time in which some values differ: `set` holds from each time of `cron` (or once, from `at`) for `duration`.

    Of windows that are open at once, the later one in the file has its way. `change` is what becomes of running guests
    when it opens and when it closes.
    """

    name: str
    duration: Duration
    cron: Cron | None = None
    at: Moment | None = None
    change: Change = Change.MOVE
    set: Overrides = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Pool cores that are kept for the exclusive guests of `owner` from each time of `cron` (or once, from `at`).

    What he does not use stays with the shared guests meanwhile. Exclusive guests of others are not given these cores
    from `notice` before it on; those that have them when it begins are dealt with as `change` says.
    """

    name: str
    owner: str
    cores: int
    duration: Duration
    cron: Cron | None = None
    at: Moment | None = None
    notice: Duration = Duration.parse("1 h")
    change: Change = Change.LEAVE


def _with(value: Any, path: tuple[str, ...], leaf: object) -> Any:
    """Return a tree of dataclasses and mappings with another leaf."""
    first, *rest = path
    old = getattr(value, first)
    if isinstance(old, Mapping):
        name, *within = rest
        item = old[name] if name in old else _blank(type(value), first)
        return replace(value, **{first: {**old, name: _with(item, tuple(within), leaf) if within else leaf}})
    if rest:
        return replace(value, **{first: _with(old, tuple(rest), leaf)})
    adds = isinstance(old, tuple) and isinstance(leaf, tuple) and any(map(is_dataclass, leaf))
    return replace(value, **{first: (*old, *leaf) if adds and isinstance(leaf, tuple) else leaf})


def _blank(cls: type, field: str) -> Any:
    """Return what a mapping's values are like before anything is said of them."""
    return get_args(get_type_hints(cls)[field])[1]()

"""Ways to compare what is wanted with what is there, with one flaw each, which the checks must find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.desired import Change, Desired, Present, What, changes


def only_what_is_missing(desired: Sequence[Desired], present: Sequence[Present]) -> list[Change]:
    """Takes a guest for what is wanted, since it has the name."""
    return [each for each in changes(desired, present) if each.what is not What.REPLACE]


def never_stops(desired: Sequence[Desired], present: Sequence[Present]) -> list[Change]:
    """Lets everything run that ever was wanted."""
    return [each for each in changes(desired, present) if each.what is not What.STOP]


def takes_everything_for_its_own(desired: Sequence[Desired], present: Sequence[Present]) -> list[Change]:
    """Does not look at who has started a guest."""
    return list(changes(desired, [replace(one, by_policy=True) for one in present]))

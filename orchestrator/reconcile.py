"""Makes the changes that a policy wants of the guests, each by itself: one that fails does not keep the others back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.desired import Change, Present, What
from orchestrator.core.lifecycle import State
from orchestrator.core.model import Mode
from orchestrator.errors import HostError, OrchestratorError, RefusedError
from orchestrator.launch import Guest, RunningGuest


def present(guest: RunningGuest, state: State) -> Present:
    """Return a guest as the comparison with what is desired sees it."""
    spec = guest.domain.spec
    return Present(
        spec=spec,
        owner=guest.domain.owner,
        state=state,
        by_policy=guest.domain.by_policy,
        interrupted=spec.mode is Mode.EXCLUSIVE and state is State.PAUSED and not guest.ran,
    )


class Hands(Protocol):
    """Starts and ends guests; raises OrchestratorError where that cannot be."""

    async def start(self, guest: Guest) -> None:
        """Start a guest, and return when it runs or takes turns."""

    async def stop(self, name: str) -> None:
        """End a guest; fine if it has ended."""


@dataclass(frozen=True, slots=True)
class Made:
    """What has become of a change: `error` is empty if it was made, else says why not; `exit_code` is its family's."""

    change: Change
    error: str = ""
    exit_code: int = 0

    def describe(self) -> dict[str, object]:
        """Return it in JSON's types."""
        return {**self.change.describe(), "error": self.error, "exit_code": self.exit_code}


async def make(changes: Iterable[Change], guests: Mapping[str, Guest], hands: Hands) -> tuple[Made, ...]:
    """Make changes in their order, those of one kind at the same time; `guests` has each that is to be started.

    If this is cancelled, what was begun goes on or is undone as `hands` has it, and a later call completes it.
    """
    todo = list(changes)
    ends = [change for change in todo if change.what is What.STOP]
    others = [change for change in todo if change.what is not What.STOP]
    made: list[Made] = []
    for some in (ends, others):  # what ends makes room
        made += await asyncio.gather(*(_make(change, guests, hands) for change in some))
    return tuple(made)


def idle(change: Change) -> Made:
    """Return what has become of a change that cannot be made."""
    family = HostError if change.what is What.UNSCHEDULED else RefusedError
    return Made(change, f"{change.guest}: cannot be started: {change.why}", family.exit_code)


async def _make(change: Change, guests: Mapping[str, Guest], hands: Hands) -> Made:
    try:
        match change.what:
            case What.BLOCKED | What.UNSCHEDULED:
                return idle(change)
            case What.STOP:
                await hands.stop(change.guest)
            case What.START:
                await hands.start(guests[change.guest])
            case What.REPLACE:
                await hands.stop(change.guest)
                await hands.start(guests[change.guest])
    except OrchestratorError as error:
        return Made(change, "; ".join(error.lines()), error.exit_code)
    return Made(change)

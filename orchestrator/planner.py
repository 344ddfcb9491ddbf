"""Keeps an engine to what its policy plans: windows that open and close, reservations that come and go.

What holds when is `core.windows`' word. The wall clock is asked again every few seconds, for it may be set.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

from orchestrator.core.policy import Policy
from orchestrator.core.policy_change import take_over
from orchestrator.core.windows import Effective, Kind, change_between, effective
from orchestrator.engine import Engine
from orchestrator.ports import Clock
from orchestrator.wall_clock import Calendar

LOOK_EVERY = 5.0
"""Seconds between two looks at the wall clock, at most."""

_WORDS = {Kind.WINDOW: "window", Kind.RESERVATION: "reservation", Kind.NOTICE: "notice of reservation"}


class Planner:
    """`policy` is what is planned. The engine is to be on what of it is effective already.

    `tell` is given a line for each change, and `take` the policy that is in force then.
    """

    def __init__(
        self,
        engine: Engine,
        calendar: Calendar,
        policy: Policy,
        tell: Callable[[str], None],
        take: Callable[[Policy], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self._engine = engine
        self._calendar = calendar
        self._tell = tell
        self._take = take
        self._present = effective(policy, calendar.local())

    def plan(self, policy: Policy) -> tuple[str, ...]:
        """Go by another plan from now on; return a line for each value that cannot be changed while guests go on."""
        self.policy, kept = take_over(self.policy, policy)
        self._go_by(effective(self.policy, self._calendar.local()))
        return kept

    async def run(self, clock: Clock) -> NoReturn:
        """Follow the wall clock."""
        while True:
            self.look()
            await clock.sleep(self._left())

    def look(self) -> None:
        """Have in force what is to be in force now."""
        before, found = self._present, effective(self.policy, self._calendar.local())
        self._present = found
        if found.on == before.on and found.policy == before.policy:
            return
        said = _said(before, found)
        self._tell(f"policy: {said}")
        self._go_by(found)
        self._engine.rearrange(change_between(self.policy, before, found), said)

    def _go_by(self, found: Effective) -> None:
        self._present = found
        self._engine.reload(found.policy)
        self._take(self._engine.policy)

    def _left(self) -> float:
        """Return for how many seconds nothing changes, but look at the clock before long."""
        until = self._present.until
        if until is None:
            return LOOK_EVERY
        return min(LOOK_EVERY, max(0.05, (until - self._calendar.local()) / timedelta(seconds=1)))


def _said(before: Effective, after: Effective) -> str:
    """Say what has begun and ended."""
    begun = [f"{_WORDS[kind]} {name!r} has begun" for kind, name in sorted(after.on - before.on)]
    ended = [f"{_WORDS[kind]} {name!r} is over" for kind, name in sorted(before.on - after.on)]
    return "; ".join([*ended, *begun]) or "other values hold"

"""Ways to restart guests with one flaw each, which the checks must find."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.restarts import GiveUp, Restart, Restarts


class NeverWaitsLonger(Restarts):
    """Waits as long before each restart as before the first."""

    def delay(self, before: int) -> int:
        return super().delay(before and 1)


class WaitsWithoutEnd(Restarts):
    """Knows no longest delay."""

    def delay(self, before: int) -> int:
        return self.rules.backoff << before


class NeverGivesUp(Restarts):
    """Takes the limit for the number of restarts that are to be remembered."""

    def after_failure(self, history: Iterable[int], now: int) -> Restart | GiveUp:
        kept = sorted(history)[1 - self.rules.limit :] if self.rules.limit > 1 else ()
        return super().after_failure(kept, now)


class NeverForgives(Restarts):
    """Counts every restart there ever was."""

    def after_failure(self, history: Iterable[int], now: int) -> Restart | GiveUp:
        return super().after_failure([max(moment, now - 1) for moment in history], now)

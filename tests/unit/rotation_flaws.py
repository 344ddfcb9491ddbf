"""Rotations with one flaw each, which the checks must find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from orchestrator.core.members import Member, Room
from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Decisions, Rules


class TwoOnACore(Rotation):
    """Gives every gang the lowest cores."""

    def tick(self, now: int) -> Decisions:
        decisions = super().tick(now)
        runs = (run._replace(cores=tuple(range(2, 2 + len(run.cores)))) for run in decisions.runs)
        return Decisions(decisions.stops, tuple(runs))


class HalfAGang(Rotation):
    """Starts wide gangs with a core less than they need."""

    def tick(self, now: int) -> Decisions:
        decisions = super().tick(now)
        runs = (run._replace(cores=run.cores[: max(1, len(run.cores) - 1)]) for run in decisions.runs)
        return Decisions(decisions.stops, tuple(runs))


class OneAtATime(Rotation):
    """Is content when one guest has begun."""

    def _fill(self, now: int, ended: dict[str, Member]) -> list[Member]:
        first = None if self.turns() else self._order.first(self._order.size, now)
        if first is not None:
            self._seats.begin(first, now, now + self._round, goes_on=first.id in ended)
        return [] if first is None else [first]


class StopsWithoutNeed(Rotation):
    """Stops guests when their slices are over although nobody waits."""

    def tick(self, now: int) -> Decisions:
        if self._order.waiting:
            return super().tick(now)
        over = [turn.guest for turn in self.turns() if turn.until <= now]
        stops = [stop for guest in over if (stop := self.block(guest, now))]
        for guest in over:
            self.unblock(guest, now)
        return Decisions(tuple(stops))


class BackfillsForEver(Rotation):
    """Lets whoever fits run for a whole slice, however long somebody wider has waited."""

    def _make_room(self, head: Member, now: int, ended: dict[str, Member]) -> Room | None:
        room = super()._make_room(head, now, ended)
        return room and Room(room.at + 1000 * self._round, self._order.size, due=False, priority=0)


class WandersAbout(Rotation):
    """Forgets where a guest was."""

    def _fill(self, now: int, ended: dict[str, Member]) -> list[Member]:
        begun = super()._fill(now, ended)
        for member in begun:
            if member.id not in ended:
                member.units = 0
        return begun


class ShortTurns(Rotation):
    """Goes by other rules than it was given."""

    def __init__(self, rules: Rules, groups: Iterable[Iterable[int]]) -> None:
        super().__init__(replace(rules, slice=rules.minimum // 2, minimum=1), groups)


class LeftToChance(Rotation):
    """Decides by something that is not in its arguments."""

    _made = count()

    def __init__(self, rules: Rules, groups: Iterable[Iterable[int]]) -> None:
        super().__init__(replace(rules, slice=rules.slice + next(self._made)), groups)

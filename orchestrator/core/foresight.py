"""What would come of starts, were they asked for one after the other, and who would have to go for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.core.account import Account, TimeUsed
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Plan, decide, entry
from orchestrator.core.requests import MoveGuest, StartGuest
from orchestrator.core.snapshot import Snapshot, Standing, gang_width

_MAY_END = (Standing.ACTIVE, Standing.PAUSED)


def foresee(snapshot: Snapshot, requests: Iterable[StartGuest]) -> list[Plan | Refusal]:
    """Return what would be decided about these starts, were they asked for one after the other.

    Growth: that of `decide`, for each.
    """
    found = []
    for request in requests:
        outcome = decide(snapshot, request)
        found.append(outcome)
        if isinstance(outcome, Plan):
            snapshot = _once_under_way(snapshot, outcome, request)
    return found


def room_makers(snapshot: Snapshot, requests: Sequence[StartGuest], candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the fewest candidates, the first ones first, without which none of these starts would be refused.

    None if there would always be one. Growth: that of `foresee`, for each candidate.
    """
    for count in range(1, len(candidates) + 1):
        without = _without(snapshot, candidates[:count])
        if all(isinstance(outcome, Plan) for outcome in foresee(without, requests)):
            return tuple(candidates[:count])
    return ()


def oldest_first(snapshot: Snapshot, account: Account) -> list[str]:
    """Return the guests that can be ended now, the oldest first. Growth: n log n."""
    there = [guest for guest, known in snapshot.guests.items() if known.standing in _MAY_END]
    return sorted(there, key=lambda guest: (-account.age(guest, snapshot.now), guest))


def better_places(snapshot: Snapshot) -> list[MoveGuest]:
    """Return the moves by which exclusive guests leave more room to others. Growth: that of `decide`, for each."""
    exclusive = [guest for guest, known in snapshot.guests.items() if known.exclusive and known.standing in _MAY_END]
    plans = [(move, decide(snapshot, move)) for move in map(MoveGuest, exclusive)]
    return [move for move, plan in plans if isinstance(plan, Plan) and plan.steps]


def _without(snapshot: Snapshot, gone: Iterable[str]) -> Snapshot:
    """Return the snapshot as it will be when these guests have ended."""
    guests, gangs, shared = dict(snapshot.guests), dict(snapshot.gangs), snapshot.shared
    for name in gone:
        known = guests.pop(name)
        shared = shared.union(known.kept)
        if known.takes_turns:
            gangs[snapshot.units.need(gang_width(known.spec, snapshot.units))] -= 1
    left = {need: count for need, count in gangs.items() if count}
    return replace(snapshot, guests=guests, gangs=left, shared=shared, usable=snapshot.units.within(shared))


def _once_under_way(snapshot: Snapshot, plan: Plan, request: StartGuest) -> Snapshot:
    """Return the snapshot as it will be when a start is under way."""
    known = entry(request, plan)
    gangs = dict(snapshot.gangs)
    if not known.exclusive:
        need = snapshot.units.need(gang_width(known.spec, snapshot.units))
        gangs[need] = gangs.get(need, 0) + 1
    shared = snapshot.shared.difference(known.kept)
    used = snapshot.spent.get(request.owner, TimeUsed())
    return replace(
        snapshot,
        spent={**snapshot.spent, request.owner: used + TimeUsed(starts=1)},
        guests={**snapshot.guests, request.guest: known},
        gangs=gangs,
        shared=shared,
        usable=snapshot.units.within(shared),
    )

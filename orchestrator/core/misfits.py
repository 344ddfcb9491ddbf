"""Which of the guests that are there a policy would not let in any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.core.permits import forbidden
from orchestrator.core.placement import Reason
from orchestrator.core.quota import kept_for_others, over, usage
from orchestrator.core.snapshot import Known, Snapshot


def misfits(snapshot: Snapshot, oldest_first: Iterable[str]) -> Iterator[tuple[str, tuple[Reason, ...]]]:
    """Yield guests that would be refused if they came now, one after the other, and by which rules.

    Who is passed over makes room for those after it. Growth: the square of the guests.
    """
    staying: list[Known] = []
    for name in oldest_first:
        known = snapshot.guests[name]
        reasons = (
            *forbidden(snapshot.policy, known.spec, known.disk),
            *over(snapshot.policy, known.owner, usage(known), staying),
            *_no_room(snapshot, known, staying),
        )
        if reasons:
            yield name, reasons
        else:
            staying.append(known)


def _no_room(snapshot: Snapshot, known: Known, staying: list[Known]) -> Iterator[Reason]:
    """Say whether an exclusive guest takes cores from the floor, or that are kept for others."""
    if not known.exclusive:
        return
    cores = snapshot.policy.cores
    left = len(snapshot.pool) - len(known.kept) - sum(len(other.kept) for other in staying)
    kept = kept_for_others(cores.kept, known.owner, staying)
    if left < kept:
        yield Reason("pool cores left to those for whom they are kept", str(kept), str(left))
    if left - kept < cores.shared_floor:
        yield Reason("pool cores left to shared guests", str(cores.shared_floor), str(max(0, left - kept)))

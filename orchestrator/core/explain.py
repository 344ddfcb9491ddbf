"""Why a guest waits, or where it runs: told from a snapshot, the locks and the rotation's own account of itself.

Nothing is decided here. Growth: linear in the guests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.durations import about
from orchestrator.core.locks import Hold, LockState
from orchestrator.core.sharing import Turn, Wait
from orchestrator.core.snapshot import Known, Snapshot, Standing, gang_width
from orchestrator.errors import UsageError

MOST_NAMED = 5
"""How many of those that are served before a guest are named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """The rotation at one moment: turns soonest over first, waits in order, all locks.

    `rivals` are the turns whose end makes room for the guest that is asked about, were it next.
    """

    turns: tuple[Turn, ...]
    waits: tuple[Wait, ...]
    locks: LockState
    rivals: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has cores that a guest waits for, and when its turn ends; `until` is None if it keeps them for good."""

    guest: str
    owner: str
    cores: tuple[int, ...]
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What there is to say about one guest; moments in nanoseconds.

    `state` is ``running``, ``waiting`` or its standing. `cores` are those it runs on, `since` when it began to run or
    wait. A waiting guest has its `position` in the order of service, and runs by `latest` at the latest (None: not on
    the pool as it is). `reasons` are whole sentences, `holders` those who have the cores in question.
    """

    guest: str
    owner: str
    state: str
    reasons: tuple[str, ...]
    cores: tuple[int, ...] = ()
    since: int | None = None
    until: int | None = None
    position: int | None = None
    latest: int | None = None
    holders: tuple[Holder, ...] = ()


_RUNS = (Standing.ACTIVE, Standing.PAUSING, Standing.STOPPING, Standing.RESIZING)


def explain(snapshot: Snapshot, timetable: Timetable, guest: str) -> Explanation:
    """Say why a guest waits or where it runs. Raises UsageError if there is no guest of this name."""
    known = snapshot.guests.get(guest)
    if known is None:
        raise UsageError(f"{guest}: there is no such guest; `orchestrator ps` lists those that are")
    wait = next((wait for wait in timetable.waits if wait.guest == guest), None)
    if wait is not None:
        return _waits(snapshot, timetable, known, wait)
    cores = dict(timetable.locks.waiters).get(guest)
    if cores is not None:
        return _awaits_stops(snapshot, timetable, known, guest, cores)
    hold = next((hold for hold in timetable.locks.holds if hold.holder == guest), None)
    turn = next((turn for turn in timetable.turns if turn.guest == guest), None)
    running = hold is not None and known.standing in _RUNS
    return Explanation(
        guest=guest,
        owner=known.owner,
        state="running" if running else known.standing,
        reasons=tuple(_stands(snapshot, known, turn)),
        cores=hold.cores if hold else (),
        since=hold.since if hold else None,
        until=turn.until if turn else None,
    )


def _stands(snapshot: Snapshot, known: Known, turn: Turn | None) -> Iterator[str]:
    """Say why a guest that does not wait is where it is."""
    match known.standing:
        case Standing.PAUSED:
            keeps = f"; it keeps cores {format_cpulist(known.kept)}" if known.kept else ""
            yield f"it was paused and gets no turns until it is resumed{keeps}"
        case Standing.QUARANTINED:
            cores = format_cpulist(known.kept)
            yield f"it did not obey: cores {cores} stay locked until its process is gone, which is being seen to"
        case Standing.STARTING:
            yield "it is being launched"
        case Standing.MOVING | Standing.RESIZING:
            yield f"it is {known.standing}, and keeps cores {format_cpulist(known.kept)} until that is done"
        case _ if known.throttled:
            yield f"it gets no turns now: {known.throttled}"
        case _ if known.exclusive:
            yield f"it is exclusive: cores {format_cpulist(known.kept)} are its own from start to stop"
        case _ if turn is not None:
            yield from _turn(snapshot, turn)


def _turn(snapshot: Snapshot, turn: Turn) -> Iterator[str]:
    left, cores = turn.until - snapshot.now, format_cpulist(turn.cores)
    if left > 0:
        yield f"it is its turn on cores {cores} for {about(left)} more"
    else:
        yield f"its turn on cores {cores} was over {about(-left)} ago, and goes on since nobody else wants them"
    yield "at the end of a turn it goes on, unless somebody before it in order wants its cores"


def _awaits_stops(
    snapshot: Snapshot, timetable: Timetable, known: Known, guest: str, cores: tuple[int, ...]
) -> Explanation:
    """Explain a guest that was given cores whose former holders have not confirmed their stops yet."""
    held = [hold for hold in timetable.locks.holds if not set(cores).isdisjoint(hold.cores)]
    own = next((hold.cores for hold in timetable.locks.holds if hold.holder == guest), ())
    names = ", ".join(hold.holder for hold in held)
    what = "it is its turn" if not known.exclusive else f"it is {known.standing}"
    reason = f"{what} on cores {format_cpulist(cores)}, as soon as {names or 'others'} confirmed the stop there"
    return Explanation(
        guest=guest,
        owner=known.owner,
        state="waiting" if not own else known.standing,
        reasons=(reason,),
        cores=own,
        holders=tuple(_holder(snapshot, hold, None) for hold in held),
    )


def _waits(snapshot: Snapshot, timetable: Timetable, known: Known, wait: Wait) -> Explanation:
    rivals = tuple(
        Holder(guest=turn.guest, owner=_owner(snapshot, turn.guest), cores=turn.cores, until=turn.until)
        for turn in timetable.rivals
    )
    keepers = tuple(_holder(snapshot, hold, None) for hold in timetable.locks.holds if _keeps(snapshot, hold))
    reasons = (*_in_order(snapshot, timetable, wait), *_for_room(snapshot, timetable, known, wait, keepers))
    return Explanation(
        guest=wait.guest,
        owner=known.owner,
        state="waiting",
        reasons=reasons,
        since=wait.since,
        position=wait.position,
        latest=wait.latest,
        holders=rivals if wait.latest is not None else keepers,
    )


def _in_order(snapshot: Snapshot, timetable: Timetable, wait: Wait) -> Iterator[str]:
    """Say who is served before it, and why."""
    ahead = [other for other in timetable.waits if other.position < wait.position]
    if not ahead:
        yield "it is next"
        return
    named = "; ".join(f"{other.guest} ({_why_before(snapshot, other, wait)})" for other in ahead[:MOST_NAMED])
    more = f"; and {len(ahead) - MOST_NAMED} more" if len(ahead) > MOST_NAMED else ""
    yield f"{len(ahead)} guests are served before it: {named}{more}"


def _why_before(snapshot: Snapshot, other: Wait, wait: Wait) -> str:
    if other.due <= snapshot.now:
        return f"has waited {about(snapshot.now - other.since)}, which puts it before all that have not"
    if other.priority > wait.priority:
        return f"class {other.priority}, above {wait.priority}"
    if other.reserved is not None:
        return "was next when cores began to be kept for it"
    if other.owner != wait.owner:
        return f"its owner {other.owner} is further behind its share than {wait.owner}"
    return "is further behind its share"


def _for_room(
    snapshot: Snapshot, timetable: Timetable, known: Known, wait: Wait, keepers: tuple[Holder, ...]
) -> Iterator[str]:
    """Say which cores it lacks, and who has them."""
    units, now = snapshot.units, snapshot.now
    need, size = units.need(gang_width(known.spec, units)), snapshot.usable.bit_count()
    cores = "cores" if units.threads == 1 else "physical cores"
    if wait.latest is None:
        kept = ", ".join(f"{holder.guest} keeps {format_cpulist(holder.cores)}" for holder in keepers)
        yield f"it needs {need} {cores} at once, and the shared pool has {size}" + (f": {kept}" if kept else "")
        return
    taken = frozenset(core for turn in timetable.turns for core in turn.cores)
    free = units.within(snapshot.shared - taken).bit_count()
    yield f"it needs {need} {cores} at once, and {free} of {size} are free"
    head = next((other for other in timetable.waits if other.reserved is not None), None)
    if head is not None and head.reserved is not None:
        who, when = "it" if head is wait else head.guest, about(max(0, head.reserved - now))
        rest = "" if head is wait else "; a turn that would put that off, or be too short, does not begin"
        yield f"cores are kept for {who}, to be free in {when}{rest}"
    yield f"it runs within {about(max(0, wait.latest - now))} at the latest, whoever comes"


def _keeps(snapshot: Snapshot, hold: Hold) -> bool:
    known = snapshot.guests.get(hold.holder)
    return known is not None and bool(known.kept)


def _holder(snapshot: Snapshot, hold: Hold, until: int | None) -> Holder:
    return Holder(guest=hold.holder, owner=_owner(snapshot, hold.holder), cores=hold.cores, until=until)


def _owner(snapshot: Snapshot, guest: str) -> str:
    known = snapshot.guests.get(guest)
    return known.owner if known else ""

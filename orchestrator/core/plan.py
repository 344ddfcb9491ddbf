"""From a request to a plan, or to every reason against it. Pure and deterministic; nothing is carried out here.

A plan is a list of steps in the order in which they are to be taken. Each names what undoes it, so that whoever
carries a plan out can take back what was done when a step fails, and a test can stop it between any two steps. What
each step means to the books is in `scheduler`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import GuestSpec, Mode, NumaWish, SmtWish
from orchestrator.core.moves import move, resize
from orchestrator.core.permits import forbidden, shut_out
from orchestrator.core.placement import Placement, Reason, Refusal, SharedFloor, place_in, seat
from orchestrator.core.poolindex import PoolIndex
from orchestrator.core.quota import Usage, demand, kept_for_others, over, over_time
from orchestrator.core.requests import MoveGuest, PauseGuest, Request, ResizeGuest, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.snapshot import Known, Snapshot, Standing, gang_width
from orchestrator.core.steps import (
    Act,
    Change,
    Claim,
    Discharge,
    End,
    Enlist,
    Forget,
    Launch,
    Lock,
    Release,
    Restore,
    Resume,
    Step,
    Suspend,
    Unlock,
    Withhold,
)
from orchestrator.errors import UsageError

__all__ = [
    "MoveGuest",
    "PauseGuest",
    "Plan",
    "Request",
    "ResizeGuest",
    "ResumeGuest",
    "StartGuest",
    "Step",
    "StopGuest",
    "aftermath",
    "decide",
    "entry",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a request, step by step; no step at all if it is so already."""

    request: Request
    steps: tuple[Step, ...] = ()

    @property
    def locks(self) -> tuple[Lock | Unlock | Claim | Release, ...]:
        """The lock changes among the steps."""
        return tuple(step.do for step in self.steps if isinstance(step.do, Lock | Unlock | Claim | Release))

    @property
    def acts(self) -> tuple[Act, ...]:
        """The acts of the hypervisor among the steps."""
        return tuple(step.do for step in self.steps if isinstance(step.do, Act))

    def undo(self, done: int | None = None) -> tuple[Change | Act, ...]:
        """Return what takes the first `done` steps back (all, if it is not given), the last one first."""
        return tuple(step.undo for step in reversed(self.steps[:done]) if step.undo is not None)

    @property
    def placement(self) -> Placement | None:
        """Where the plan launches a guest, if it does."""
        return next((act.placement for act in self.acts if isinstance(act, Launch)), None)


def decide(snapshot: Snapshot, request: Request) -> Plan | Refusal:
    """Return how to do what is asked, or every rule that refuses it.

    Raises UsageError if the request names a guest that is not there. Growth: the host's CPUs and the guests.
    """
    if isinstance(request, StartGuest):
        return _start(snapshot, request)
    known = snapshot.guests.get(request.guest)
    if known is None:
        raise UsageError(f"{request.guest}: there is no such guest; `orchestrator ps` lists those that are")
    under_way = known.standing not in (Standing.ACTIVE, Standing.PAUSED)
    if under_way:
        return Refusal((Reason("guest at rest", "nothing under way", f"it is {known.standing}"),))
    match request:
        case StopGuest():
            return Plan(request, tuple(_stop(request.guest, known)))
        case PauseGuest():
            return Plan(request, tuple(_pause(request.guest, known)))
        case ResumeGuest():
            return _resume(snapshot, request, known)
        case MoveGuest():
            steps = move(snapshot, request, known)
        case ResizeGuest():
            steps = _resized(snapshot, request, known)
    return steps if isinstance(steps, Refusal) else Plan(request, steps)


def entry(request: StartGuest, plan: Plan) -> Known:
    """Return what is put in the books about a guest that is being started by this plan."""
    assert plan.placement is not None  # every start has a launch
    exclusive = request.spec.mode is Mode.EXCLUSIVE
    return Known(
        spec=request.spec,
        owner=request.owner,
        priority=request.priority or 0,
        standing=Standing.STARTING,
        placement=plan.placement,
        kept=plan.placement.held if exclusive else (),
        disk=request.disk,
    )


def _start(snapshot: Snapshot, request: StartGuest) -> Plan | Refusal:
    exclusive = request.spec.mode is Mode.EXCLUSIVE
    place = _place_exclusive if exclusive else _place_shared
    placement = place(snapshot, request.spec, request.owner)
    reasons = placement.reasons if isinstance(placement, Refusal) else ()
    taken = snapshot.guests.get(request.guest)
    if taken is not None:
        there = f"{taken.owner} has a guest of this name, {taken.standing}"
        reasons = (Reason("guest name", f"{request.guest}, not in use", there), *reasons)
    reasons = (*reasons, *_by_policy(snapshot, request, placement))
    if reasons or isinstance(placement, Refusal):
        return Refusal(reasons)
    steps = _start_exclusive if exclusive else _start_shared
    taken_first = tuple(steps(request.guest, placement))
    return Plan(request, taken_first[:-1] if request.staged else taken_first)  # the last one lets it run


def _by_policy(snapshot: Snapshot, request: StartGuest, placement: Placement | Refusal) -> Iterator[Reason]:
    """Yield every rule of the policy by which this guest cannot be started, wherever it would be."""
    policy, owner, spec = snapshot.policy, request.owner, request.spec
    yield from shut_out(policy, owner, by_admin=request.by_admin)
    yield from forbidden(policy, spec, request.disk)
    kept = spec.cores_needed if isinstance(placement, Refusal) else len(placement.held)
    yield from over(policy, owner, demand(spec, kept, request.disk), snapshot.guests.values())
    yield from over_time(policy, owner, len(snapshot.pool), snapshot.spent)


def _start_exclusive(guest: str, placement: Placement) -> Iterator[Step]:
    yield Step(Withhold(placement.held), Restore(placement.held))
    yield Step(Lock(guest, placement.held), Unlock(guest))
    yield Step(Launch(guest, placement), End(guest))
    yield Step(Resume(guest), Suspend(guest))


def _start_shared(guest: str, placement: Placement) -> Iterator[Step]:
    yield Step(Launch(guest, placement), End(guest))
    yield Step(Enlist(guest), Discharge(guest))


def _stop(guest: str, known: Known) -> Iterator[Step]:
    yield Step(End(guest))  # with its turns going on: it may have to shut down by itself
    yield from map(Step, aftermath(guest, known))


def aftermath(guest: str, known: Known) -> Iterator[Change]:
    """Yield what is to be done about a guest whose process has ended, for whatever reason."""
    yield Unlock(guest)
    if known.kept:
        yield Restore(known.kept)
    yield Forget(guest)


def _pause(guest: str, known: Known) -> Iterator[Step]:
    if known.standing is Standing.PAUSED:
        return
    if known.exclusive:
        yield Step(Suspend(guest), Resume(guest))
    else:
        yield Step(Discharge(guest), Enlist(guest))


def _resume(snapshot: Snapshot, request: ResumeGuest, known: Known) -> Plan | Refusal:
    guest = request.guest
    if known.standing is Standing.ACTIVE:
        return Plan(request)
    if known.exclusive:
        reasons = tuple(_runs_too(snapshot, known))
        return Refusal(reasons) if reasons else Plan(request, (Step(Resume(guest), Suspend(guest)),))
    # Paused gangs do not count when exclusive guests ask for cores, so there may be too few left for it.
    reasons = (*_too_wide(snapshot, known.spec), *_runs_too(snapshot, known))
    return Refusal(reasons) if reasons else Plan(request, (Step(Enlist(guest), Discharge(guest)),))


def _runs_too(snapshot: Snapshot, known: Known) -> Iterator[Reason]:
    """Yield by which quotas a paused guest cannot be one that runs."""
    return over(snapshot.policy, known.owner, Usage(running=1), snapshot.guests.values())


def _resized(snapshot: Snapshot, request: ResizeGuest, known: Known) -> tuple[Step, ...] | Refusal:
    """Return the steps to more or fewer vCPUs; more of them are held to the quotas as a start is."""
    steps = resize(snapshot, request, known)
    more = max(0, request.vcpus - len(known.placement.vcpus))
    claims = [] if isinstance(steps, Refusal) else [step.do for step in steps if isinstance(step.do, Claim)]
    wanted = Usage(vcpus=more, exclusive_cores=sum(len(claim.cores) for claim in claims))
    reasons = tuple(over(snapshot.policy, known.owner, wanted, snapshot.guests.values()))
    if not reasons:
        return steps
    return Refusal((*(steps.reasons if isinstance(steps, Refusal) else ()), *reasons))


def _place_exclusive(snapshot: Snapshot, spec: GuestSpec, owner: str) -> Placement | Refusal:
    """Place an exclusive guest so that the floor is left, and every gang that takes turns still fits beside it."""
    units, cores = snapshot.units, snapshot.policy.cores
    widest = max(snapshot.gangs, default=0)
    index = PoolIndex(snapshot.topology, snapshot.shared, split_cores=cores.split_cores)
    kept = kept_for_others(cores.kept, owner, snapshot.guests.values())
    floor = SharedFloor(policy=cores.shared_floor, widest_gang=widest * units.threads, kept=kept)
    placement = place_in(index, spec, floor)
    if isinstance(placement, Placement):
        left = units.within(snapshot.shared.difference(placement.held)).bit_count()
        if left < widest:  # where physical cores differ in size, enough threads can be too few cores
            return Refusal((Reason("physical cores left to the widest waiting gang", str(widest), str(left)),))
    return placement


def _place_shared(snapshot: Snapshot, spec: GuestSpec, _: str) -> Placement | Refusal:
    """Return where a shared guest is launched; its turns may be elsewhere. Guests begin apart while there is room."""
    units = snapshot.units
    reasons = list(_too_wide(snapshot, spec))
    if spec.numa is NumaWish.STRICT and len(snapshot.topology.nodes) > 1:
        reasons.append(Reason("turns in one NUMA node only", "numa = strict", "mode = exclusive"))
    if spec.smt is SmtWish.REQUIRE and units.threads < 2:
        reasons.append(Reason("cores with an SMT sibling", str(spec.cores_needed), "0"))
    if reasons:
        return Refusal(tuple(reasons))
    usable, need = snapshot.usable, units.need(gang_width(spec, units))
    first = sum(width * count for width, count in snapshot.gangs.items()) % usable.bit_length()
    beyond = usable >> first << first
    chosen = _lowest(beyond if beyond.bit_count() >= need else usable, need)
    return seat(spec, units.cores(chosen), snapshot.topology, snapshot.pool)


def _too_wide(snapshot: Snapshot, spec: GuestSpec) -> Iterator[Reason]:
    units = snapshot.units
    need, size = units.need(gang_width(spec, units)), snapshot.usable.bit_count()
    if need > size:
        kept = "; ".join(
            f"{name} keeps {format_cpulist(known.kept)}"
            for name, known in sorted(snapshot.guests.items())
            if known.kept
        )
        what = "shared pool cores" if units.threads == 1 else "physical cores of the shared pool"
        yield Reason(what, str(need), f"{size} ({kept})" if kept else str(size))


def _lowest(mask: int, count: int) -> int:
    """Return the `count` lowest bits of a mask."""
    chosen = 0
    for _ in range(count):
        chosen |= (mask ^ chosen) & -(mask ^ chosen)
    return chosen

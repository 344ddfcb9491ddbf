"""Turns as they are really taken: the rotation's decisions, carried out by hand-overs and charged as confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.handover import Handovers
from orchestrator.core.locks import Locks
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import RotationPolicy
from orchestrator.core.pool import Pool
from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Guest, Run, Stop
from orchestrator.errors import UsageError


class Turnover:
    """The rotation of shared guests, and the hand-overs of all guests. Growth: as of `Rotation` and `Handovers`.

    `notices` are those of turns, and of who takes them; whoever reads them clears them. `next_decision` is when to
    `tick` next, if nothing changes before; None if there is no need.
    """

    def __init__(
        self, pool: Pool, groups: Sequence[Sequence[int]], policy: RotationPolicy, weights: Mapping[str, int]
    ) -> None:
        self.handovers = Handovers(Locks(pool), policy.confirm)
        self.rotation = Rotation(policy.rules(), groups, self.handovers.awaits_others)
        for owner, weight in weights.items():
            self.rotation.weigh_owner(owner, weight)
        self.notices: list[Notice] = []
        self.next_decision: int | None = None
        self._enlisted: set[str] = set()
        self._discharged: set[str] = set()
        self._held: set[str] = set()
        self._began: dict[str, int] = {}
        # What each guest was told last: the turn it is to take, and the end of one that is not confirmed yet.
        self._runs: dict[str, Run] = {}
        self._stops: dict[str, Stop] = {}

    def share(self, cores: Iterable[int], now: int) -> None:
        """Let shared guests have these cores only."""
        shared = tuple(sorted(cores))
        self.rotation.set_cores(shared, now)
        self._tell(Happening.RESIZED, "", now, shared)

    def enlist(self, guest: Guest, now: int) -> None:
        """Let a shared guest take turns, for the first time or again."""
        self._discharged.discard(guest.id)
        if guest.id not in self._enlisted:
            self._enlisted.add(guest.id)
            self.rotation.add(guest, now)
            if guest.id in self._held:
                self._block(guest.id, now)
        elif guest.id not in self._held:
            self.rotation.unblock(guest.id, now)
        self._tell(Happening.ENLISTED, guest.id, now)

    def adopt(
        self, guest: str, cores: tuple[int, ...], now: int, *, running: bool, sharer: Guest | None = None
    ) -> None:
        """Take over a guest found on these cores: an exclusive one, or a running `sharer`, which has begun a turn.

        Raises UsageError if somebody else has a core of them, or a turn cannot be taken there; nothing is changed then.
        """
        self.handovers.adopt(guest, cores, now, running=running, keeps=sharer is None)
        if sharer is not None:
            try:
                self.rotation.add(sharer, now, running_on=cores)
            except UsageError:
                self.handovers.gone(guest, now)
                raise
            self._enlisted.add(guest)
            self._tell(Happening.ENLISTED, guest, now)
        if running:
            self._began[guest] = now
            self.notices.append(Notice(Happening.TURN_BEGAN, guest, now, cores, now))

    def reclass(self, guest: Guest, now: int) -> None:
        """Let a guest take part as another one of the same name; fine if it is not in the rotation."""
        if guest.id not in self._enlisted:
            return
        stop = self.rotation.remove(guest.id, now)
        if stop is not None:
            self._stop(stop, now)
        self.rotation.add(guest, now)
        if guest.id in self._held or guest.id in self._discharged:
            self._block(guest.id, now)

    def discharge(self, guest: str, now: int) -> None:
        """Let a shared guest take no turns; one that it is taking is stopped."""
        self._discharged.add(guest)
        self._block(guest, now)
        self._tell(Happening.DISCHARGED, guest, now)

    def hold(self, guest: str, now: int) -> None:
        """Give a shared guest no turns until it is let go, whatever else is asked; one that it is taking is stopped."""
        self._held.add(guest)
        if guest in self._enlisted:
            self._block(guest, now)

    def let_go(self, guest: str, now: int) -> None:
        """Let a guest that was held have turns again, unless it was discharged."""
        self._held.discard(guest)
        if guest in self._enlisted and guest not in self._discharged:
            self.rotation.unblock(guest, now)

    def _block(self, guest: str, now: int) -> None:
        stop = self.rotation.block(guest, now)
        if stop is not None:
            self._stop(stop, now)

    def forget(self, guest: str, now: int) -> None:
        """Strike a guest that takes no turns any more, whatever it was doing; fine if it is not in the rotation."""
        if guest in self._enlisted:
            self._enlisted.remove(guest)
            self.rotation.remove(guest, now)
            self._tell(Happening.DISCHARGED, guest, now)
        self._discharged.discard(guest)
        self._held.discard(guest)
        self._runs.pop(guest, None)
        self._stops.pop(guest, None)

    def tick(self, now: int) -> None:
        """Decide whose turn it is, and begin the hand-overs."""
        decisions = self.rotation.tick(now)
        for stop in decisions.stops:
            self._stop(stop, now)
        for run in decisions.runs:
            self._runs[run.guest] = run
            self.handovers.assign(run.guest, run.cores, now)
        self.next_decision = self.rotation.next_event()

    def continued(self, order: Continue, now: int) -> None:
        """Note that a guest has confirmed that it runs."""
        guest = order.guest
        if self.handovers.continued(guest, now):
            self._began[guest] = now
            self.rotation.began(guest, now)
            self.next_decision = self.rotation.next_event()
            run = self._runs.get(guest)
            since, latest = (run.since, run.latest) if run else (now, 0)
            self.notices.append(Notice(Happening.TURN_BEGAN, guest, now, order.cores, since, latest))

    def halted(self, order: Halt, now: int) -> None:
        """Note that a guest has confirmed that it stands still, and charge it for the time it has run."""
        guest = order.guest
        if self.handovers.halted(guest, now):
            ran = now - self._end(guest, order.cores, now)
            stop = self._stops.pop(guest, None)
            if stop is not None:
                self.rotation.charge(stop, ran, now)

    def reseated(self, guest: str, cores: tuple[int, ...], now: int) -> None:
        """Note that an exclusive guest's threads are on these cores of its hold now."""
        self.handovers.settle(guest, cores)
        self._tell(Happening.RESEATED, guest, now, cores)

    def gone(self, guest: str, now: int) -> None:
        """Note that a guest's process is no more."""
        if guest in self._began:
            self._end(guest, self.handovers.cores(guest), now)
        self.handovers.gone(guest, now)

    def _end(self, guest: str, cores: tuple[int, ...], now: int) -> int:
        """Tell that a turn is over, and return when it had begun."""
        began = self._began.pop(guest)
        self._tell(Happening.TURN_ENDED, guest, now, cores, began)
        return began

    def _stop(self, stop: Stop, now: int) -> None:
        guest = stop.guest
        never_ran = guest in self._stops  # the stop of the turn before is not confirmed yet
        self.handovers.halt(guest, now)
        if never_ran or self.handovers.phase(guest) is None:
            self.rotation.charge(stop, 0, now)
        else:
            self._stops[guest] = stop

    def _tell(self, what: Happening, guest: str, at: int, cores: tuple[int, ...] = (), since: int = 0) -> None:
        self.notices.append(Notice(what, guest, at, cores, since))

"""Who writes down what happens in a simulation: into the measures, and into the chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.acts import Continue
from orchestrator.core.model import Mode
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.placement import Refusal
from orchestrator.core.snapshot import gang_width, unit_groups
from orchestrator.core.topology import Topology
from orchestrator.core.units import Units
from orchestrator.simulator.gantt import BarKind, Chart
from orchestrator.simulator.measures import Measures, Report
from orchestrator.simulator.scenario import Arrival, Scenario


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation gives: the figures, and the chart of its cores."""

    report: Report
    chart: Chart


class Scribe:
    """Keeps who runs and who is quarantined since when, to tell of whole intervals. Each call takes constant time."""

    def __init__(self, scenario: Scenario, topology: Topology) -> None:
        self._end = int(scenario.duration)
        self._units = Units(unit_groups(topology, split_cores=scenario.policy.cores.split_cores))
        self._measures = Measures(scenario, self._units.size)
        self._chart = Chart(scenario.title, sorted(topology.pool.cores), self._end)
        self._arrived: dict[str, Arrival] = {}
        self._needs: dict[str, int] = {}
        self._running: dict[str, tuple[tuple[int, ...], int]] = {}
        self._quarantined: dict[str, tuple[tuple[int, ...], int]] = {}
        self._held: set[str] = set()

    def arrived(self, arrival: Arrival, refusal: Refusal | None) -> None:
        """Note that a guest has come, and whether it was let in."""
        if refusal is not None:
            self._measures.refused(arrival.guest, str(refusal), arrival.at)
            return
        self._arrived[arrival.guest] = arrival
        if arrival.spec.mode is Mode.SHARED:
            self._needs[arrival.guest] = self._units.need(gang_width(arrival.spec, self._units))

    def hand_over(self, order: Continue, begin: int, end: int) -> None:
        """Note that a guest is being let run."""
        self._measures.handover(order.guest, len(order.cores), end - begin)
        if not self._chart.full:
            self._bar(order.guest, order.cores, begin, end, BarKind.HANDOVER)

    def note(self, notice: Notice) -> None:
        """Write down what a notice tells."""
        guest, at = notice.guest, notice.at
        match notice.what:
            case Happening.TURN_BEGAN:
                self._running[guest] = (notice.cores, at)
                if notice.latest:
                    self._measures.waited(guest, notice.since, at, notice.latest)
            case Happening.TURN_ENDED:
                self._ran(guest, at)
            case Happening.ENLISTED | Happening.DISCHARGED | Happening.THROTTLED | Happening.RELEASED:
                self._takes_part(notice.what, guest, at)
            case Happening.RESIZED:
                self._measures.resize(self._units.within(frozenset(notice.cores)).bit_count(), at)
            case Happening.QUARANTINED:
                self._quarantined[guest] = (notice.cores, at)
                self._ran(guest, at)
                self._measures.failed(f"quarantined: {notice.why}", guest, at)
            case Happening.GONE:
                self._measures.failed(notice.why, guest, at)
                self._freed(guest, at)
            case Happening.UNDONE:
                self._measures.failed(f"not started: {notice.why}", guest, at)

    def _takes_part(self, what: Happening, guest: str, at: int) -> None:
        """Note who is to have turns: not who is throttled, whatever else is said of him meanwhile."""
        held = guest in self._held
        if what is Happening.THROTTLED:
            self._held.add(guest)
            self._measures.leave(guest, at)
        elif what in (Happening.RELEASED, Happening.DISCHARGED) and held:
            self._held.discard(guest)
            if what is Happening.RELEASED:
                self._enter(guest, at)
        elif what is Happening.DISCHARGED:
            self._measures.leave(guest, at)
        elif what is Happening.ENLISTED:
            self._enter(guest, at)

    def _enter(self, guest: str, at: int) -> None:
        who = self._arrived[guest]
        self._measures.enter(guest, who.owner, who.spec.weight, who.priority, self._needs[guest], at)

    def finish(self, waits: Iterable[tuple[str, int, int | None]]) -> Outcome:
        """Return what has come of it; `waits` are those still going on: the guest, since when and its bound."""
        for guest in list(self._running):
            self._ran(guest, self._end)
        for guest in list(self._quarantined):
            self._freed(guest, self._end)
        return Outcome(self._measures.report(self._end, waits), self._chart)

    def _ran(self, guest: str, at: int) -> None:
        cores, began = self._running.pop(guest, ((), at))
        if not cores:
            return
        need = self._needs.get(guest)
        if need is None:
            self._measures.exclusive(len(cores), began, at)
        else:
            self._measures.ran(guest, need, began, at)
        if not self._chart.full:
            self._bar(guest, cores, began, at, BarKind.EXCLUSIVE if need is None else BarKind.TURN)

    def _freed(self, guest: str, at: int) -> None:
        cores, since = self._quarantined.pop(guest, ((), at))
        if cores:
            self._measures.quarantined(len(cores), since, at)
            self._bar(guest, cores, since, at, BarKind.QUARANTINE)

    def _bar(self, guest: str, cores: tuple[int, ...], begin: int, end: int, kind: BarKind) -> None:
        self._chart.bar(guest, self._arrived[guest].owner, cores, begin, end, kind)

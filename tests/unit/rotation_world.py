"""A host on a virtual clock that does what a rotation decides, and reports everything in it that is wrong.

It keeps its own books of who is on which core and what was promised to whom, and shares no code with the rotation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from orchestrator.core.rotation import Rotation
from orchestrator.core.sharing import Decisions, Guest, Rules, Run, Stop, Wait

MS = 1_000_000
RULES = Rules(slice=100 * MS, minimum=20 * MS, handover=5 * MS, patience=400 * MS)


def singles(cores: int) -> list[tuple[int, ...]]:
    """The pool of a host without SMT: units of one core, from core 2 on."""
    return [(core,) for core in range(2, 2 + cores)]


def pairs(cores: int) -> list[tuple[int, ...]]:
    """The pool of a host with SMT, numbered as Linux does: siblings are half of the cores apart."""
    return [(core, core + cores // 2) for core in range(2, 2 + cores // 2)]


@dataclass
class World:
    """`faults` collects what went wrong, each as the name of the property and the particulars."""

    rotation: Rotation
    groups: Sequence[tuple[int, ...]]
    rules: Rules = RULES
    now: int = 0
    faults: list[str] = field(default_factory=list)
    log: list[tuple[int, Decisions]] = field(default_factory=list)
    guests: dict[str, Guest] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    running: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    evicted: set[str] = field(default_factory=set)
    former: dict[str, tuple[int, ...]] = field(default_factory=dict)
    promised: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    left_early: bool = False

    def __post_init__(self) -> None:
        self.allowed = frozenset(core for group in self.groups for core in group)
        self.threads = min(map(len, self.groups))

    # What happens to the host.

    def add(self, guest: Guest) -> None:
        self.guests[guest.id] = guest
        self.rotation.add(guest, self.now)

    def remove(self, guest: str) -> None:
        self._left(guest, self.rotation.remove(guest, self.now))
        del self.guests[guest]
        self.blocked.discard(guest)
        self.former.pop(guest, None)

    def block(self, guest: str) -> None:
        self._left(guest, self.rotation.block(guest, self.now))
        self.blocked.add(guest)

    def unblock(self, guest: str) -> None:
        self.rotation.unblock(guest, self.now)
        self.blocked.discard(guest)

    def allow(self, cores: Collection[int]) -> None:
        self.allowed = frozenset(cores)
        self.rotation.set_cores(cores, self.now)
        self.promised.clear()
        usable = {core for group in self.groups if self.allowed.issuperset(group) for core in group}
        self.evicted = {guest for guest, (_, cores) in self.running.items() if not usable.issuperset(cores)}
        self.left_early = True

    def _left(self, guest: str, stop: Stop | None) -> None:
        self.promised.pop(guest, None)
        self.left_early = True
        if guest in self.evicted:
            return
        if (stop is None) != (guest not in self.running):
            self.faults.append(f"decisions: {guest} left, and its turn was {stop}")
        if stop is not None:
            self._stop(stop)

    def run(self, until: int) -> None:
        """Tick now and whenever the rotation asks for it, and stay at `until`."""
        self.tick()
        while (event := self.rotation.next_event()) is not None and event <= until:
            if event <= self.now:
                self.faults.append(f"decisions: {event} is no time to tick after {self.now}")
                return
            self.now = event
            self.tick()
        self.now = until

    # What the rotation decides, and whether it may.

    def tick(self) -> None:
        alone = not self._waiting()
        decisions = self.rotation.tick(self.now)
        self.log.append((self.now, decisions))
        ran_until_now = [stop.guest for stop in decisions.stops if stop.guest not in self.evicted]
        for stop in decisions.stops:
            self._stop(stop)
        if alone and ran_until_now:
            self.faults.append(f"work conservation: nobody waited, but {ran_until_now} had to stop")
        idle = {core for group in self._idle() for core in group}
        for run in decisions.runs:
            self._check_stickiness(run, idle, decisions)
        for run in decisions.runs:
            self._run(run)
        self.evicted.clear()
        waits = self.rotation.waits(self.now)
        self._check_waits(waits)
        self._check_idle_cores(waits, ran_until_now)

    def _stop(self, stop: Stop) -> None:
        since, cores = self.running.pop(stop.guest, (0, ()))
        if cores != stop.cores or stop.ran != self.now - since:
            self.faults.append(f"decisions: {stop}, but it was on {cores} since {since} at {self.now}")
        early = stop.guest in self.evicted or self.left_early
        if self.now - since < self.rules.handover + self.rules.minimum and not early:
            self.faults.append(f"minimum run: {stop}")
        self.used[stop.guest] = self.used.get(stop.guest, 0) + (self.now - since) * len(cores)
        self.former[stop.guest] = cores

    def _run(self, run: Run) -> None:
        taken = {core: guest for guest, (_, cores) in self.running.items() for core in cores}
        clash = [core for core in run.cores if core in taken or core not in self.allowed]
        if clash:
            self.faults.append(f"exclusivity: {run} at {self.now} on {clash}, where {taken} are, of {self.allowed}")
        width = self.guests[run.guest].width
        units = -(-width // self.threads)
        whole = [group for group in self.groups if set(group) <= set(run.cores)]
        if len(whole) != units or {core for group in whole for core in group} != set(run.cores):
            self.faults.append(f"gang atomicity: {run} of width {width}")
        if run.guest in self.running or run.guest in self.blocked:
            self.faults.append(f"decisions: {run} at {self.now}, but it runs already or is blocked")
        if self.now + self.rules.handover > min(run.latest, self.promised.pop(run.guest, run.latest)):
            self.faults.append(f"wait bound: {run} at {self.now}")
        self.running[run.guest] = (self.now, run.cores)

    def _check_stickiness(self, run: Run, idle: set[int], decisions: Decisions) -> None:
        former = set(self.former.get(run.guest, ()))
        if not former or not former <= idle or set(run.cores) == former:
            return
        rivals = [other for other in decisions.runs if other is not run and former & set(other.cores)]
        if not any(set(self.former.get(other.guest, ())) == set(other.cores) for other in rivals):
            self.faults.append(f"stickiness: {run} at {self.now} was on {former}, which are free")

    def _check_waits(self, waits: Sequence[Wait]) -> None:
        expected = {guest for guest in self.guests if guest not in self.running and guest not in self.blocked}
        if {wait.guest for wait in waits} != expected:
            self.faults.append(f"decisions: {waits} wait, and should {expected}")
        for wait in waits:
            if wait.latest is None:
                continue
            self.promised[wait.guest] = min(wait.latest, self.promised.get(wait.guest, wait.latest))
            if self.now + self.rules.handover > self.promised[wait.guest]:
                self.faults.append(f"wait bound: {wait} still at {self.now}")

    def _check_idle_cores(self, waits: Sequence[Wait], ran_until_now: Collection[str]) -> None:
        """A guest that fits may only wait if a turn of its own would put off the reservation, or be too short."""
        idle = len(self._idle())
        head = next((wait for wait in waits if wait.reserved is not None), None)
        for wait in waits:
            need = self._need(wait.guest)
            if need > idle:
                continue
            if head is None or head.reserved is None or self._need(head.guest) <= idle:
                self.faults.append(f"work conservation: {wait} at {self.now} with {idle} idle units")
            elif wait.guest in ran_until_now:
                self.faults.append(f"work conservation: {wait} was stopped at {self.now} for {idle} idle units")
            elif head.reserved - self.now >= self.rules.handover + self.rules.minimum:
                self.faults.append(f"work conservation: {wait} could run before {head} at {self.now}")
            elif head.due > self.now and idle + self._freed_by(head) - self._need(head.guest) >= need:
                self.faults.append(f"work conservation: {wait} could run beside {head} at {self.now}")
        if head and head.reserved and head.reserved > self.now + self.rules.slice + self.rules.handover:
            self.faults.append(f"work conservation: cores are kept too long for {head} at {self.now}")

    def _freed_by(self, head: Wait) -> int:
        freed = 0
        for turn in self.rotation.turns():
            minimum = turn.since + self.rules.handover + self.rules.minimum
            lower = self.guests[turn.guest].priority < head.priority
            if head.reserved is not None and (min(minimum, turn.until) if lower else turn.until) <= head.reserved:
                freed += self._need(turn.guest)
        return freed

    def _need(self, guest: str) -> int:
        return -(-self.guests[guest].width // self.threads)

    def _idle(self) -> list[tuple[int, ...]]:
        taken = {core for _, cores in self.running.values() for core in cores}
        return [group for group in self.groups if self.allowed.issuperset(group) and not taken & set(group)]

    def _waiting(self) -> list[str]:
        """Who waits and could run, by the world's own books; an evicted guest waits too."""
        size = sum(self.allowed.issuperset(group) for group in self.groups)
        off = {guest for guest in self.guests if guest not in self.running or guest in self.evicted}
        return [guest for guest in off if guest not in self.blocked and self._need(guest) <= size]

    def share(self, guests: Collection[str]) -> int:
        """The core time that these guests have had so far, in core-nanoseconds."""
        now = {guest: (self.now - since) * len(cores) for guest, (since, cores) in self.running.items()}
        return sum(self.used.get(guest, 0) + now.get(guest, 0) for guest in guests)


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 if all are equal, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))

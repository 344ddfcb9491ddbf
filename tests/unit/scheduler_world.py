"""A host on a virtual clock that does what a scheduler orders, in its own time, and reports all that is wrong with it.

It keeps its own books of who runs where, and shares no code with the scheduler. Acts take as long as `delays` says, act
by act, so that confirmations overtake each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import cycle

from orchestrator.core.acts import Continue, Halt
from orchestrator.core.discovery import discover
from orchestrator.core.durations import Duration
from orchestrator.core.model import MIB, Architecture, GuestSpec, Mode, PayloadBoot
from orchestrator.core.orders import Freeze, Happening, Kill, Notice, Order
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Plan, Request
from orchestrator.core.policy import CorePolicy, Policy, RotationPolicy
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.snapshot import Standing
from orchestrator.core.steps import End, Launch, Reseat
from orchestrator.core.topology import Topology

MS = 1_000_000
ROTATION = RotationPolicy(handover=Duration(10 * MS), patience=Duration(300 * MS))
POLICY = Policy(rotation=ROTATION)


def host(cpus: int, threads: int = 1, nodes: int = 1) -> Topology:
    """A host of so many logical CPUs, of which each node has as many; siblings are numbered next to each other."""
    share = cpus // nodes
    rows = {f"node/node{node}/cpulist": f"{node * share}-{node * share + share - 1}" for node in range(nodes)}
    siblings = {
        f"cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu - cpu % threads}-{cpu - cpu % threads + threads - 1}"
        for cpu in range(cpus)
    }
    return discover({"cpu/online": f"0-{cpus - 1}", **siblings, **(rows if nodes > 1 else {})})


def spec(name: str, vcpus: int = 1, *, exclusive: bool = False, weight: int = 100) -> GuestSpec:
    return GuestSpec(
        name=name,
        architecture=Architecture.X86_64,
        vcpus=vcpus,
        memory=MIB,
        boot=PayloadBoot(payload="none"),
        mode=Mode.EXCLUSIVE if exclusive else Mode.SHARED,
        weight=weight,
        max_vcpus=4 if exclusive and vcpus < 4 else None,
    )


def floor(cores: int) -> Policy:
    return replace(POLICY, cores=CorePolicy(shared_floor=cores))


@dataclass
class World:
    """`faults` collects what went wrong; `deaf` guests confirm no stop, launches and moves of `unlucky` ones fail.

    Of a move of a `vague` one nobody knows whether it came to anything. `foretold` counts the turns whose guest was
    known when the one before stood still. A `sluggish` guest takes as long as is said to stop, or to go on.
    """

    scheduler: Scheduler
    topology: Topology
    delays: Iterator[int] = field(default_factory=lambda: cycle([2 * MS]))
    now: int = 0
    faults: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    log: list[tuple[int, Order]] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    may_run: dict[int, str] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    unlucky: set[str] = field(default_factory=set)
    vague: set[str] = field(default_factory=set)
    sluggish: dict[str, int] = field(default_factory=dict)
    prompt: bool = True
    foretold: int = 0
    _successor: Continue | None = None
    _waiting: list[tuple[int, int, Order]] = field(default_factory=list)

    def ask(self, request: Request) -> Plan | Refusal:
        outcome = self.scheduler.request(request, self.now)
        self._obey()
        return outcome

    def change(self, policy: Policy) -> None:
        self.scheduler.change(policy, self.now)
        self._obey()

    def crash(self, guest: str) -> None:
        if guest in self.alive:
            self._dies(guest)
            self.scheduler.gone(guest, "crashed", self.now)
            self._obey()

    def run(self, milliseconds: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, or stop as soon as `stop` says so."""
        end = self.now + milliseconds * MS
        while not stop() and (moment := self._next()) is not None and moment <= end:
            self.now = max(self.now, moment)
            if self._waiting and self._waiting[0][0] <= self.now:
                self._confirm(heappop(self._waiting)[2])
            else:
                self.scheduler.tick(self.now)
            self._obey()
        if not stop():
            self.now = end
        late = [wait for wait in self.scheduler.waits(self.now) if wait.latest and wait.latest < self.now]
        if late and self.prompt:
            self.faults.append(f"wait bound: {late} at {self.now}")

    def turns(self, guest: str) -> list[tuple[int, ...]]:
        """The cores of each turn that a guest has begun."""
        return [n.cores for n in self.notices if n.guest == guest and n.what is Happening.TURN_BEGAN]

    def ran(self, guest: str) -> int:
        """How long a guest has run until now, in nanoseconds."""
        mine = [notice for notice in self.notices if notice.guest == guest]
        ended = sum(notice.at - notice.since for notice in mine if notice.what is Happening.TURN_ENDED)
        turns = [n for n in mine if n.what in {Happening.TURN_BEGAN, Happening.TURN_ENDED}]
        under_way = self.now - turns[-1].at if turns and turns[-1].what is Happening.TURN_BEGAN else 0
        return ended + under_way

    def told(self, guest: str) -> list[Happening]:
        return [notice.what for notice in self.notices if notice.guest == guest]

    def _next(self) -> int | None:
        moments = [entry[0] for entry in self._waiting[:1]]
        event = self.scheduler.next_event()
        return min([*moments, event], default=None) if event is not None else min(moments, default=None)

    def _obey(self) -> None:
        orders = self.scheduler.orders()
        self._check_successor(orders)
        for order in orders:
            self.log.append((self.now, order))
            self._check(order)
            if not isinstance(order, Freeze) and not (isinstance(order, Halt) and order.guest in self.deaf):
                takes = self.sluggish.get(order.guest) if isinstance(order, Halt | Continue) else None
                heappush(self._waiting, (self.now + (takes or next(self.delays)), len(self.log), order))
        self._check_books()
        for notice in self.scheduler.notices():
            self.notices.append(notice)
            late = notice.what is Happening.TURN_BEGAN and notice.latest and notice.at > notice.latest
            if late and self.prompt:
                self.faults.append(f"wait bound: {notice}")

    def _check_successor(self, orders: Sequence[Order]) -> None:
        """Who was to be let run at once, as the scheduler said before it was told, has been."""
        successor, self._successor = self._successor, None
        if successor is not None:
            self.foretold += 1
            if successor not in orders:
                self.faults.append(f"{successor} was foretold, what came was {orders}")

    def _check_books(self) -> None:
        """Who may run on a core holds its lock, and what a guest keeps is nobody else's."""
        holders = {core: hold.holder for hold in self.scheduler.locks().holds for core in hold.cores}
        for core, guest in self.may_run.items():
            if holders.get(core) != guest:
                self.faults.append(f"locks: {guest} may run on core {core} at {self.now}, held by {holders.get(core)}")
        snapshot = self.scheduler.snapshot(self.now)
        fine = [known.kept for known in snapshot.guests.values() if known.standing is not Standing.QUARANTINED]
        deaf = {core for known in snapshot.guests.values() for core in known.kept}.difference(*fine)
        everybodys = [*(core for kept in fine for core in kept), *deaf, *snapshot.shared]
        if sorted(everybodys) != sorted(snapshot.pool.cores):
            self.faults.append(f"books: cores {everybodys} at {self.now}")

    def _check(self, order: Order) -> None:
        if isinstance(order, Continue):
            taken = {core: self.may_run[core] for core in order.cores if core in self.may_run}
            if taken:
                self.faults.append(f"one core, one guest: {order} at {self.now}, but {taken}")
            if not self.topology.pool.cores.issuperset(order.cores):
                self.faults.append(f"reserved cores: {order}")
            if order.guest not in self.alive:
                self.faults.append(f"order: {order} at {self.now}, but it is not there")
            self.may_run |= dict.fromkeys(order.cores, order.guest)
        elif isinstance(order, Launch) and order.guest in self.alive:
            self.faults.append(f"order: {order} at {self.now}, but it is there")
        elif isinstance(order, Reseat):
            cores = order.placement.held
            if set(cores) - self.locked(order.guest):
                self.faults.append(f"locks first: {order} at {self.now}, but it holds {self.locked(order.guest)}")
            if order.guest in self.may_run.values():  # a resize: it may be on all of them from now on
                self.may_run |= dict.fromkeys(cores, order.guest)

    def locked(self, guest: str) -> set[int]:
        """The cores whose locks a guest holds."""
        return {core for hold in self.scheduler.locks().holds if hold.holder == guest for core in hold.cores}

    def _confirm(self, order: Order) -> None:
        guest = order.guest
        if isinstance(order, Launch) and guest in self.unlucky:
            self.scheduler.failed(order, "no such disk", self.now)
            return
        if isinstance(order, Reseat) and guest in self.alive and guest in self.unlucky | self.vague:
            if guest not in self.vague and guest in self.may_run.values() and self.scheduler.knows(guest):
                self._is_on(guest, self.scheduler.snapshot(self.now).guests[guest].placement.held)
            self.scheduler.failed(order, "no such core", self.now, unknown=guest in self.vague)
            return
        if isinstance(order, Launch):
            self.alive.add(guest)
        elif guest not in self.alive:
            return
        if isinstance(order, Halt):
            self._stands_still(guest)
        if isinstance(order, Reseat) and guest in self.may_run.values():
            self._is_on(guest, order.placement.held)
        if isinstance(order, End | Kill):
            self._dies(guest)
        if isinstance(order, Kill):
            self.scheduler.gone(guest, "killed", self.now)
        else:
            self._successor = self.scheduler.successor(order) if isinstance(order, Halt) else None
            self.scheduler.done(order, self.now)

    def _is_on(self, guest: str, cores: tuple[int, ...]) -> None:
        self._stands_still(guest)
        self.may_run |= dict.fromkeys(cores, guest)

    def _stands_still(self, guest: str) -> None:
        self.may_run = {core: other for core, other in self.may_run.items() if other != guest}

    def _dies(self, guest: str) -> None:
        self._stands_still(guest)
        self.alive.discard(guest)


def world(
    cpus: int = 8,
    *,
    policy: Policy = POLICY,
    threads: int = 1,
    nodes: int = 1,
    delays: Sequence[int] = (2 * MS,),
    kind: type[Scheduler] = Scheduler,
) -> World:
    topology = host(cpus, threads, nodes)
    return World(kind(topology, policy), topology, cycle(delays))

"""What callers may ask of the engine, each by what the kernel says of him. Nothing here knows of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from orchestrator.core.desired import Present
from orchestrator.core.lifecycle import State
from orchestrator.core.orders import Notice
from orchestrator.core.tally import Tallies
from orchestrator.engine import Engine, Guest, RunningGuest
from orchestrator.errors import OrchestratorError, OutcomeUnknownError, RefusedError, UsageError
from orchestrator.ports import Clock
from orchestrator.reconcile import present
from orchestrator.service.callers import Peer
from orchestrator.service.events import Events, waited
from orchestrator.service.inside_desk import InsideDesk
from orchestrator.service.messages import (
    ACT_LIMIT,
    MOST_GUESTS,
    MoveRequest,
    NoSuchGuestError,
    ResizeRequest,
    StartRequest,
)
from orchestrator.service.payload_desk import PayloadDesk, Use, use_of
from orchestrator.service.views import (
    NANOSECONDS,
    CoreView,
    ExplanationView,
    Foreseen,
    GuestDetails,
    GuestView,
    Started,
    cores_by_holder,
    view_cores,
    view_details,
    view_explanation,
    view_foreseen,
    view_guest,
    view_starting,
)
from orchestrator.service.wanted import Definitions, Wanted

_T = TypeVar("_T")


class Desk:
    """Takes what callers ask, one guest at a time or several, and lets each touch only what is his."""

    def __init__(
        self,
        engine: Engine,
        definitions: Definitions,
        events: Events,
        clock: Clock,
        limit: float = ACT_LIMIT,
    ) -> None:
        self.events = events
        self._engine = engine
        self._definitions = definitions
        self._clock = clock
        self._limit = limit
        self._starting: dict[str, Guest] = {}
        self._acts: set[asyncio.Task[Any]] = set()
        self.tallies = Tallies()
        self.inside = InsideDesk(engine, self._living, self.carry_out)
        self.payloads = PayloadDesk(engine.payloads, self._payload_uses, definitions.payload_quota)

    def note(self, notice: Notice) -> None:
        """Make an event of what the engine tells, and count it."""
        owner = self.owner_of(notice.guest) or ""
        self.events.add(notice.what, notice.guest, owner, notice.cores, notice.why, waited(notice))
        self.tallies.take(notice)

    # What is shown.

    def guests(self, peer: Peer) -> tuple[GuestView, ...]:
        """Show the caller's guests, by name."""
        held = cores_by_holder(self._engine.holders())
        rows = [
            view_guest(guest, self._engine.state(name), held.get(name, ()))
            for name, guest in self._engine.guests.items()
            if name not in self._starting and peer.sees(guest.domain.owner)
        ]
        rows += [view_starting(guest) for guest in self._starting.values() if peer.sees(guest.owner)]
        return tuple(sorted(rows, key=lambda row: row.name))

    def guest(self, peer: Peer, name: str) -> GuestDetails:
        """Show all there is to see of a guest."""
        guest = self.launched(peer, name)
        held = cores_by_holder(self._engine.holders()).get(name, ())
        return view_details(guest, self._engine.state(name), held, int(self._clock.now() * NANOSECONDS))

    def explain(self, peer: Peer, name: str) -> ExplanationView:
        """Say why a guest waits, or where it runs. Those who are before it are named, whosever they are."""
        self.check(peer, name)
        guest = self._engine.guests.get(name)
        if guest is not None and self.has_ended(name):
            return ExplanationView(
                guest=name,
                owner=guest.domain.owner,
                state=State.STOPPED,
                reasons=(f"it has ended: {guest.ended}",),
                cores=(),
                since=None,
                until=None,
                position=None,
                latest=None,
                holders=(),
            )
        return view_explanation(self._engine.explain(name), int(self._clock.now() * NANOSECONDS))

    def cores(self, peer: Peer) -> tuple[CoreView, ...]:
        """Show every core of the host; of guests only the caller's are named."""
        names = {*self._engine.guests, *self._starting}
        return view_cores(self._engine, frozenset(name for name in names if peer.sees(self.owner_of(name) or "")))

    # What is done.

    async def foresee(self, peer: Peer, request: StartRequest) -> Foreseen:
        """Say what would come of a start, by the decisions that it would meet now; nothing is begun or written down."""
        wanted = await self._wanted(peer, request)
        views = tuple(view_foreseen(guest, outcome) for guest, outcome in self._engine.foresee(wanted.guests))
        return Foreseen(any(view.refused_by for view in views), views, dict(wanted.accelerators))

    async def start(self, peer: Peer, request: StartRequest) -> Started:
        """Start all guests of a request, or none; they belong to the caller."""
        wanted = await self._wanted(peer, request)
        names = [guest.spec.name for guest in wanted.guests]
        self._starting |= {guest.spec.name: guest for guest in wanted.guests}
        await self.carry_out(self._start(wanted.guests), "start", ", ".join(names))
        held = cores_by_holder(self._engine.holders())
        rows = tuple(
            view_guest(guest, self._engine.state(name), held.get(name, ()))
            for name in names
            if (guest := self._engine.guests.get(name)) is not None
        )
        return Started(rows, dict(wanted.accelerators))

    async def stop(self, peer: Peer, name: str) -> None:
        """End a guest; fine if it has ended. One that waits for room within its quota does so no longer."""
        self.check(peer, name)
        if name in self._starting and self._engine.give_up(name):
            return
        self.launched(peer, name)
        await self.carry_out(self._engine.stop([name]), "stop", name)

    async def kill(self, peer: Peer, name: str) -> None:
        """End a guest's process at once; fine if it has ended."""
        self.launched(peer, name)
        if not self.has_ended(name):
            await self.carry_out(self._engine.kill(name), "kill", name)

    async def pause(self, peer: Peer, name: str) -> None:
        """Let a guest stand still until it is resumed."""
        self._living(peer, name)
        await self.carry_out(self._engine.pause(name), "pause", name)

    async def resume(self, peer: Peer, name: str) -> None:
        """Let a paused guest go on."""
        self._living(peer, name)
        await self.carry_out(self._engine.resume(name), "resume", name)

    async def move(self, peer: Peer, name: str, wanted: MoveRequest) -> GuestDetails:
        """Have an exclusive guest on other cores while it runs, and show it."""
        self._living(peer, name)
        await self.carry_out(self._engine.move(name, wanted.cores), "move", name)
        return self.guest(peer, name)

    async def resize(self, peer: Peer, name: str, wanted: ResizeRequest) -> GuestDetails:
        """Give an exclusive guest more vCPUs, or fewer, while it runs, and show it."""
        self._living(peer, name)
        await self.carry_out(self._engine.resize(name, wanted.vcpus), "resize", name)
        return self.guest(peer, name)

    async def restart(self, peer: Peer, name: str) -> None:
        """End a guest, and start it anew by the same definition, for the same owner."""
        domain = self.launched(peer, name).domain
        again = replace(
            self._engine.wanted[name],
            emulator=self._definitions.emulator(domain.spec.architecture),
            pinned=self._definitions.pinned(domain.owner),
            origin=None,
        )
        await self.carry_out(self._restart(name, again), "restart", name)

    async def remove(self, peer: Peer, name: str) -> None:
        """Forget a guest that has ended."""
        self.launched(peer, name)
        if not self.has_ended(name):
            raise RefusedError(f"{name}: is {self._engine.state(name)}; `orchestrator stop {name}` first")
        del self._engine.guests[name]
        self.events.add("removed", name, peer.user)

    async def finish(self, seconds: float) -> None:
        """Wait for what is being done, so long at most."""
        if self._acts:
            await asyncio.wait(self._acts, timeout=seconds)

    # What policy runs do, for whoever the guests belong to.

    def present(self) -> list[Present]:
        """Return all guests that are known, those that are being started too."""
        known = [
            present(guest, self._engine.state(name))
            for name, guest in self._engine.guests.items()
            if name not in self._starting
        ]
        return known + [
            Present(spec=guest.spec, owner=guest.owner, state=State.STARTING, by_policy=guest.by_policy)
            for guest in self._starting.values()
        ]

    async def begin(self, guest: Guest) -> None:
        """Start a guest for its owner."""
        name = guest.spec.name
        if name in self._starting:
            raise RefusedError(f"{name}: is being started already")
        self._starting[name] = guest
        await self._start([guest])

    # What these have in common.

    async def _wanted(self, peer: Peer, request: StartRequest) -> Wanted:
        """Read what a start asks for, and refuse it the names that the caller cannot have."""
        if request.count < 1 or not 1 <= request.count * len(request.definitions) <= MOST_GUESTS:
            raise UsageError(f"start: name 1 to {MOST_GUESTS} guests at once")
        wanted = await self._definitions.read(request, peer.user)
        if peer.may_do_everything:
            wanted = replace(wanted, guests=[replace(guest, by_admin=True) for guest in wanted.guests])
        for guest in wanted.guests:
            name = guest.spec.name
            owner = self.owner_of(name)
            if owner is not None:
                peer.require(name, owner)
            if name in self._starting:
                raise RefusedError(f"{name}: is being started already; use another name")
        return wanted

    async def _start(self, guests: Sequence[Guest]) -> None:
        try:
            await self._engine.start(guests)
        finally:
            for guest in guests:
                self._starting.pop(guest.spec.name, None)

    async def _restart(self, name: str, again: Guest) -> None:
        await self._engine.stop([name])
        self._starting[name] = again
        try:
            await self._start([again])
        except OrchestratorError as error:
            self.events.add("restart failed", name, again.owner, why=str(error))
            raise

    async def carry_out(self, act: Coroutine[Any, Any, _T], what: str, names: str) -> _T:
        """Do something to its end, even if the caller leaves; he is told if it takes longer than he may wait."""
        task = asyncio.create_task(act)
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)
        done, _ = await asyncio.wait({task}, timeout=self._limit)
        if not done:
            raise OutcomeUnknownError(
                f"{names}: {what} is still under way after {self._limit:g} s; look again with `orchestrator ps`"
            )
        return task.result()

    def _payload_uses(self) -> Iterator[Use]:
        """Yield who maps payloads, or will when it is started, anew or at last."""
        for name, guest in self._engine.guests.items():
            if not self.has_ended(name):
                yield from use_of(guest.domain.spec, guest.domain.owner, guest.pid)
        for starting in self._starting.values():
            yield from use_of(starting.spec, starting.owner, None)

    def owner_of(self, name: str) -> str | None:
        """Return whose guest this is; None if there is none."""
        starting, guest = self._starting.get(name), self._engine.guests.get(name)
        if starting is not None:
            return starting.owner
        return None if guest is None else guest.domain.owner

    def check(self, peer: Peer, name: str) -> None:
        """Raise NoSuchGuestError or ForbiddenError unless there is a guest of this name that the caller may touch."""
        owner = self.owner_of(name)
        if owner is None:
            raise NoSuchGuestError(f"{name[:64]}: there is no such guest; `orchestrator ps` lists those that are")
        peer.require(name, owner)

    def launched(self, peer: Peer, name: str) -> RunningGuest:
        """Return a guest that the caller may touch, and that has or had a process."""
        self.check(peer, name)
        if name in self._starting:
            raise RefusedError(f"{name}: is being started; try again when it has been")
        return self._engine.guests[name]

    def _living(self, peer: Peer, name: str) -> RunningGuest:
        guest, state = self.launched(peer, name), self._engine.state(name)
        if state is State.STOPPED:
            raise RefusedError(f"{name}: has ended ({guest.ended}); `orchestrator restart {name}` starts it anew")
        if state is State.BACKING_OFF:
            raise RefusedError(f"{name}: is {state}, so there is no process; `orchestrator explain {name}` tells why")
        return guest

    def has_ended(self, name: str) -> bool:
        """Tell whether a guest has ended, and is not being started anew."""
        return name not in self._starting and self._engine.state(name) is State.STOPPED


Act = Callable[[Peer, str], Awaitable[None]]
"""Something that is done to one guest."""

"""The engine: what may be asked of the guests of one host, and the loop that lets them take turns.

It names no adapter; what it needs of the world comes through ports. What the scheduler orders is carried out in
`driver`, what happens by itself is followed in `upkeep`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

from orchestrator.admission import Admission
from orchestrator.adoption import adopt
from orchestrator.core.agenda import Change
from orchestrator.core.durations import about
from orchestrator.core.explain import Explanation
from orchestrator.core.inspection import Inspection, Look
from orchestrator.core.life import Life
from orchestrator.core.lifecycle import State
from orchestrator.core.model import GuestSpec, Mode
from orchestrator.core.orders import Notice
from orchestrator.core.overview import Survey
from orchestrator.core.placement import Reason, Refusal
from orchestrator.core.plan import MoveGuest, PauseGuest, Plan, ResizeGuest, ResumeGuest, StopGuest
from orchestrator.core.policy import Policy
from orchestrator.core.policy_change import take_over
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.topology import Topology, require_pool
from orchestrator.drift import DriftKeeper
from orchestrator.driver import Driver
from orchestrator.errors import RefusedError, UsageError
from orchestrator.launch import NANOSECONDS, Guest, Launcher, RunningGuest
from orchestrator.payload_ports import Payloads
from orchestrator.ports import Clock
from orchestrator.quotas import NO_ACCOUNTING, Accounting, QuotaKeeper
from orchestrator.recorder import Records, Unrecorded
from orchestrator.together import all_or_first_failure, first_of
from orchestrator.upkeep import Upkeep

__all__ = ["Engine", "Guest", "RunningGuest", "require_pool"]

_UNRECORDED = Unrecorded()


class Engine:
    """Starts, rotates and ends guests on one host.

    `policy` is the one in force. `guests` are those that were started here, the ended ones too, by name, and `wanted`
    has by what definition. While `run` is running, turns are taken, and what happens to guests is seen to.
    `on_notice` is told what happens, after the engine has taken it in.
    """

    def __init__(
        self,
        topology: Topology,
        policy: Policy,
        launcher: Launcher,
        clock: Clock,
        on_notice: Callable[[Notice], None] = lambda _: None,
        records: Records = _UNRECORDED,
        accounting: Accounting = NO_ACCOUNTING,
    ) -> None:
        self.topology = topology
        self.policy = policy
        self._launcher = launcher
        self._records = records
        self._scheduler = Scheduler(topology, policy, account=accounting.account)
        self._driver = Driver(self._scheduler, launcher, clock, records)
        self._upkeep = Upkeep(self._driver, on_notice)
        self._lives, self.wanted = self._driver.lives, self._driver.wanted
        self._started: dict[str, None] = {}
        self._admission = Admission(self._driver, self.foresee, self.stop, lambda: self.policy)
        self.give_up = self._admission.give_up
        self.keep_in_place = DriftKeeper(self._driver, self._upkeep.tell).look
        days = accounting.calendar
        self._quotas = None if days is None else QuotaKeeper(self._driver, days, self.stop)

    @property
    def guests(self) -> dict[str, RunningGuest]:
        """Return the guests that have or had a process, by name."""
        return self._driver.guests

    @property
    def payloads(self) -> Payloads:
        """Return the store of what guests map."""
        return self._launcher.payloads

    async def run(self) -> NoReturn:
        """Let turns be taken, and see to what happens by itself; never returns."""
        self._driver.begin(self._upkeep.follow_events())
        self._driver.begin(self._upkeep.listen())
        if self._quotas is not None:
            self._driver.begin(self._quotas.run())
        try:
            while True:
                await self._until_next_event()
                self._scheduler.tick(self._driver.now())
                self._driver.go_on()
        finally:
            self._driver.cancel_all()
            if self._quotas is not None:
                self._quotas.save()

    def reload(self, policy: Policy) -> tuple[str, ...]:
        """Go by another policy from now on, guests going on; return a line for each value that cannot be changed so."""
        self.policy, kept = take_over(self.policy, policy)
        self._records.limit_serial(int(self.policy.logs.serial_limit))
        self._scheduler.change(self.policy, self._driver.now())
        self._driver.go_on()
        return kept

    def rearrange(self, change: Change, why: str) -> None:
        """Do about guests what a change of the policy wants, after `reload`; nothing without a calendar."""
        if self._quotas is not None:
            self._quotas.rearrange(change, why)

    async def start(self, guests: Sequence[Guest]) -> None:
        """Start guests at the same time, or refuse all of them with every reason; raises the first failure, if any.

        What is beyond a quota may wait for room, or make some, as the policy says (`OverQuota`). Returns when each
        exclusive one runs and each shared one takes turns, and one that is staged is paused.
        """
        foreseen = await self._admission.admitted(guests)
        for guest in guests:
            name = guest.spec.name
            self._driver.wanted[name], self._lives[name] = guest, Life(guest.spec)
            self._started[name] = None
        asked = [(guest.spec.name, self._driver.request(guest.request())) for guest, _ in foreseen]
        await all_or_first_failure([self._driver.outcome(*each) for each in asked])

    def foresee(self, guests: Iterable[Guest]) -> list[tuple[Guest, Plan | Refusal]]:
        """Return what would come of `start` for each guest, in the order in which they choose; nothing is begun."""
        # The wide and the exclusive choose first: they are the harder to place.
        ordered = sorted(guests, key=lambda guest: (guest.spec.mode is not Mode.EXCLUSIVE, -guest.spec.cores_needed))
        found = self._scheduler.foresee([guest.request() for guest in ordered], self._driver.now())
        return [
            (guest, self._or_backing_off(guest.spec.name, what)) for guest, what in zip(ordered, found, strict=True)
        ]

    async def adopt(self, decode: Callable[[str], GuestSpec]) -> list[str]:
        """Take over what runs already, before `run`; return a line for each guest about which something was done.

        `decode` reads a definition back from the canonical JSON in a domain's metadata.
        """
        adopted, notes = await adopt(self._launcher, self._scheduler, decode, self._driver.now)
        for one in adopted:
            name = one.running.name
            self._driver.wanted[name], self._lives[name] = one.guest, Life(one.guest.spec)
            self._upkeep.launched(one.running)
        self._scheduler.account.keep_only(self._lives)
        self._driver.go_on()
        for one in adopted:
            if one.paused or one.crashed:
                self._lives[one.running.name].found_still(crashed=one.crashed)
            if one.goes_on:
                self._driver.request(ResumeGuest(one.running.name))
        return notes

    async def pause(self, name: str, *, emergency: bool = False) -> None:
        """Let a guest stand still until it is resumed, also over a restart of the scheduler.

        In an `emergency` no full disk is in the way, as for an end.
        """
        await self._toggle(PauseGuest(name), paused=True, emergency=emergency)

    async def resume(self, name: str, *, emergency: bool = False) -> None:
        """Let a paused guest go on; not one that is kept for inspection."""
        await self._toggle(ResumeGuest(name), paused=False, emergency=emergency)

    async def move(self, name: str, cores: Iterable[int] = ()) -> None:
        """Have an exclusive guest on these cores, or on better ones if there are such, while it runs."""
        await self._reseat(MoveGuest(name, tuple(sorted(set(cores)))))

    async def resize(self, name: str, vcpus: int) -> None:
        """Have so many vCPUs in an exclusive guest while it runs."""
        await self._reseat(ResizeGuest(name, vcpus))

    async def kill(self, name: str, how: str = "killed") -> None:
        """End a guest's process at once, without its help; one that waits to be restarted is not. `how` is for `ps`."""
        if self._upkeep.discard(name, how):
            return
        guest = self._known(name)
        await self._records.intend_end("kill", {"guest": name})
        if guest.over:
            self._upkeep.discard(name, how)  # it has ended while that was written down
            return
        self._lives[name].killed(how)
        if guest.pid is not None:
            self._launcher.processes.kill(guest.pid, str(guest.domain.uuid))
        await self._driver.gone(guest)
        await self._driver.rest(name)  # if it was being ended

    async def inspect(self, name: str, look: Look) -> Inspection:
        """Look inside a guest, which stands still for as long as that takes, and no longer."""
        return await self._launcher.inspect(self._known(name), look)

    def explain(self, name: str) -> Explanation:
        """Say why a guest waits, or where it runs. Raises UsageError if there is none of this name."""
        life = self._lives.get(name)
        if life is not None and life.state is State.BACKING_OFF:
            left = about(max(0, (life.due or 0) - self._driver.now()))
            reasons = (f"{life.why}; it is restarted in {left}",)
            return Explanation(
                guest=name, owner=self._driver.wanted[name].owner, state=State.BACKING_OFF, reasons=reasons
            )
        found = self._scheduler.explain(name, self._driver.now())
        match life:
            case Life(state=State.CRASHED_KEPT):
                why = f"{life.why}; it stands still for inspection until it is stopped"
            case Life(state=State.FAILED):
                why = f"{life.why}; it is being seen to"
            case _:
                return found
        return replace(found, state=life.state, reasons=(why,))

    async def stop(self, names: Iterable[str]) -> None:
        """End guests at the same time; they stay in `guests`, with how they ended. Fine if they have ended already.

        Each that is not paused is asked to shut down, and ended by force if it has not within its definition's grace.
        """
        await all_or_first_failure([self._stop(name) for name in names])

    async def stop_all(self) -> None:
        """End every guest that was started here; those that were taken over go on."""
        await self.stop(list(self._started))

    def state(self, name: str) -> State:
        """Return where a guest is in its life."""
        life = self._lives.get(name)
        return State.STARTING if life is None else life.state

    def holders(self) -> dict[int, str]:
        """Return who holds each core that is held."""
        return {core: hold.holder for hold in self._scheduler.locks().holds for core in hold.cores}

    def survey(self) -> Survey:
        """Return the present state, to be shown. Growth: n log n in the guests."""
        now = self._driver.now()
        return Survey(self._scheduler.snapshot(now), self._scheduler.waits(now), self._scheduler.locks().holds)

    def look(self) -> None:
        """Read from the kernel where threads are, and from serial logs what was said; see `Upkeep.is_quiet`."""
        for guest in list(self.guests.values()):
            if self._upkeep.is_quiet(guest):
                continue
            self._launcher.look(guest)
            self._upkeep.check(guest)
            self._upkeep.hear(guest)

    # Requests.

    async def _toggle(self, request: PauseGuest | ResumeGuest, *, paused: bool, emergency: bool) -> None:
        """Pause or resume; what is wanted is noted before it is done, and taken back if it cannot be."""
        name = request.guest
        uuid = str((guest := self._known(name)).domain.uuid)
        self._require_sound(name)
        intend = self._records.intend_end if emergency else self._records.intend
        await intend("pause" if paused else "resume", {"guest": name})
        await self._launcher.hypervisor.mark_paused(uuid, paused=paused)
        try:
            self._require_sound(name)
            await self._driver.ask(request)
        except RefusedError:
            await self._launcher.hypervisor.mark_paused(uuid, paused=not paused)
            raise
        if not paused:
            guest.domain = replace(guest.domain, staged=False)

    async def _reseat(self, request: MoveGuest | ResizeGuest) -> None:
        self._known(request.guest)
        self._require_sound(request.guest)
        await self._driver.ask(request)

    def _require_sound(self, name: str) -> None:
        """Raise RefusedError for a guest in trouble: QEMU would let it go on as if nothing had been."""
        life = self._lives[name]
        if life.state in (State.FAILED, State.CRASHED_KEPT):
            raise RefusedError(
                f"{name}: {life.why}, so it can be neither paused, resumed nor moved; "
                f"`orchestrator stop {name}` ends it"
            )

    def _known(self, name: str) -> RunningGuest:
        guest = self.guests.get(name)
        if guest is None or not self._scheduler.knows(name):
            raise UsageError(f"{name}: there is no such guest; `orchestrator ps` lists those that are")
        return guest

    async def _stop(self, name: str) -> None:
        life = self._lives.get(name)
        if life is None:
            return
        if life.state in (State.STARTING, State.FAILED, State.QUARANTINED):
            life.dismissed = True  # whatever comes of it now, it is not restarted
        await self._driver.rest(name)
        if not self._upkeep.discard(name) and self._scheduler.knows(name):
            await self._driver.ask(StopGuest(name))

    def _or_backing_off(self, name: str, outcome: Plan | Refusal) -> Plan | Refusal:
        """Refuse the name of a guest that the scheduler does not know, since it waits to be restarted."""
        if self.state(name) is not State.BACKING_OFF:
            return outcome
        there = f"{self._driver.wanted[name].owner} has a guest of this name, {State.BACKING_OFF}"
        others = outcome.reasons if isinstance(outcome, Refusal) else ()
        return Refusal((Reason("guest name", f"{name}, not in use", there), *others))

    async def _until_next_event(self) -> None:
        """Return when the scheduler wants a tick."""
        driver = self._driver
        driver.raise_defect()
        while (event := self._scheduler.next_event()) is None or event > driver.now():
            driver.stir.clear()
            stirred = driver.stir.wait()
            if event is None:
                await stirred
            else:
                await first_of(stirred, driver.clock.sleep((event - driver.now()) / NANOSECONDS))
            driver.raise_defect()

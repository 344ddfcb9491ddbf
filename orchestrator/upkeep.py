"""What happens to guests by themselves: they end, come to trouble, fall silent, and are kept or restarted.

How a life goes on is `core.life`'s word; here it is heard what happens, and seen to what follows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NoReturn
from zlib import crc32

from orchestrator.core.acts import Phase
from orchestrator.core.durations import about
from orchestrator.core.life import Life
from orchestrator.core.lifecycle import Event, State
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.plan import StopGuest
from orchestrator.driver import Driver
from orchestrator.errors import OrchestratorError, RefusedError
from orchestrator.launch import NANOSECONDS, Guest, RunningGuest
from orchestrator.ports import DomainEvent, DomainEventKind
from orchestrator.serial import read_serial

LISTEN_EVERY = 1.0
"""Seconds between two looks at the serial ports of guests that have to speak; a quarter of a limit that is shorter."""

_LISTENS = 4

_MOST_QUIET = 60
"""Looks after which a guest's threads are read even though it has done nothing."""


class Upkeep:
    """Follows each guest from its launch to its end. `on_notice` is told what happens when that has been taken in."""

    def __init__(self, driver: Driver, on_notice: Callable[[Notice], None]) -> None:
        self._driver = driver
        self._on_notice = on_notice
        self._to_hear = asyncio.Event()
        driver.observer = self

    # What the driver tells.

    def launched(self, guest: RunningGuest) -> None:
        """Take a guest in, and watch for its end."""
        self._driver.guests[guest.name] = guest
        self._driver.records.began(guest.domain)
        guest.quiet_looks = crc32(guest.name.encode()) % _MOST_QUIET  # so that not all are looked at at once
        guest.serial_lost = self._driver.records.serial_lost(guest.name)  # of those before it, which was told
        self._driver.begin(self._watch(guest))
        if _limit(guest):
            self._to_hear.set()

    def told(self, notice: Notice) -> None:
        """Let a guest's life go on by what the scheduler tells, and charge it."""
        self._charge(notice)
        life = self._driver.lives.get(notice.guest)
        if life is not None:
            ended = life.told(notice)
            if ended:
                self._follow(notice.guest, life)
            elif notice.what is Happening.TURN_ENDED:
                self._keep_if_still(notice.guest, life)
        self._driver.records.tell(notice)
        self._on_notice(notice)

    def _charge(self, notice: Notice) -> None:
        guest = self._driver.guests.get(notice.guest)
        if guest is None or guest.over:
            return
        match notice.what:
            case Happening.TURN_BEGAN:
                guest.charge = guest.charge.runs(notice.at, len(notice.cores))
            case Happening.TURN_ENDED:
                guest.charge = guest.charge.runs(notice.at, 0)
            case Happening.RESEATED if guest.charge.cores:
                guest.charge = guest.charge.runs(notice.at, len(notice.cores))

    def is_quiet(self, guest: RunningGuest) -> bool:
        """Return whether a guest stands still and its process has done nothing since it was looked at last.

        Where no thread of it has run, none has strayed, and nothing was said; still each is looked at now and then. To
        read that costs a fraction of reading where all its threads are.
        """
        before, guest.activity = guest.activity, ""
        if guest.pid is not None:
            guest.activity = self._driver.launcher.processes.activity(guest.pid)
        quiet = guest.charge.cores == 0 and guest.activity == before and guest.quiet_looks < _MOST_QUIET
        guest.quiet_looks = guest.quiet_looks + 1 if quiet else 0
        return quiet

    def check(self, guest: RunningGuest) -> None:
        """Compare what a guest was charged for with what the kernel has counted; tell when it first is too little.

        Tell, too, when output of its serial port was first lost, and when that has become twice as much.
        """
        self._check_output(guest)
        if guest.pid is None:
            return
        now, kernel = self._driver.now(), int(guest.cpu_seconds * NANOSECONDS)
        before, guest.drift = guest.drift, guest.charge.drift(now, kernel)
        if guest.drift and not before:
            why = (
                f"the kernel has counted {about(kernel)} of CPU time, which is {about(guest.drift)} more than "
                "its turns account for: it ran while it was to stand still, or where it was not to"
            )
            self.tell(Notice(Happening.DRIFT, guest.name, now, guest.domain.placement.held, why=why))

    def _check_output(self, guest: RunningGuest) -> None:
        lost = self._driver.records.serial_lost(guest.name)
        before, guest.serial_lost = guest.serial_lost, lost
        if lost.bit_length() > before.bit_length():
            why = f"{lost} bytes that its serial port printed came faster than they could be kept; the newest are"
            self.tell(Notice(Happening.OUTPUT_LOST, guest.name, self._driver.now(), why=why))

    def tell(self, notice: Notice) -> None:
        """Have something known to whoever watches, and in the log."""
        self._driver.records.tell(notice)
        self._on_notice(notice)

    # What is heard of guests.

    async def _watch(self, guest: RunningGuest) -> None:
        """Hear what a guest's QEMU tells, down to its end: its monitor hangs up first."""
        async for name, data in guest.monitor.events():
            life = self._life(guest)
            if life is not None and life.says(name, data, self._driver.now()):
                self._see_to_trouble(guest.name, life)
        self._blame_payload(guest)
        guest.hung_up.set()
        await guest.monitor.close()
        if self._driver.guests.get(guest.name) is guest:
            await self._driver.gone(guest)

    def _blame_payload(self, guest: RunningGuest) -> None:
        """Say so if what a guest mapped is not what it was: a file that is cut short ends QEMU with SIGBUS."""
        life, mapped = self._life(guest), guest.domain.mapped
        if life is not None and mapped is not None and not self._driver.launcher.payloads.is_unchanged(mapped):
            life.blame(Event.QEMU_CRASHED, f"its payload was changed under it: {mapped.path}")

    async def follow_events(self) -> None:
        """Hear what libvirt tells, which is later than a monitor, and comes even if that does not."""
        async for event in self._driver.launcher.hypervisor.events():
            guest = self._driver.guests.get(event.name)
            if guest is not None:
                await self._take_in(guest, event)

    async def _take_in(self, guest: RunningGuest, event: DomainEvent) -> None:
        life = self._life(guest)
        if life is None:
            return
        if event.detail == "guest panicked":
            if life.trouble(Event.PANICKED, "its kernel panicked"):
                self._see_to_trouble(guest.name, life)
            return
        processes, uuid = self._driver.launcher.processes, str(guest.domain.uuid)
        if guest.pid is None or processes.find(uuid) != guest.pid:  # else it is told of the process before this one
            crashed = event.kind is DomainEventKind.CRASHED
            life.blame(Event.QEMU_CRASHED if crashed else Event.PROCESS_GONE, event.detail)
            await self._driver.gone(guest)

    async def listen(self) -> NoReturn:
        """Look often enough for new lines from guests that have to speak, and see to those that are silent."""
        while True:
            speakers = [guest for guest in self._driver.guests.values() if not guest.over and _limit(guest)]
            if speakers:
                shortest = min(map(_limit, speakers)) / NANOSECONDS
                await self._driver.clock.sleep(min(LISTEN_EVERY, shortest / _LISTENS))
                for guest in speakers:
                    with contextlib.suppress(OSError):  # what cannot be read now may be read the next time
                        self.hear(guest)
            else:
                self._to_hear.clear()
                await self._to_hear.wait()

    def hear(self, guest: RunningGuest) -> None:
        """Read on in a guest's serial log; a guest that has been silent for too long is in trouble."""
        before = guest.log_size, len(guest.unfinished)
        read_serial(guest, self._driver.launcher.files)
        life, now = self._life(guest), self._driver.now()
        if life is None:
            return
        # What is new and does not end a line only makes the unfinished one longer.
        if guest.log_size - before[0] > len(guest.unfinished) - before[1]:
            life.heard(now)
        if life.is_silent(now):
            limit = guest.domain.spec.heartbeat_limit
            life.trouble(Event.SILENT, f"no new line on its serial port for {limit} of its own time")
            self._see_to_trouble(guest.name, life)

    def _life(self, guest: RunningGuest) -> Life | None:
        """Return a guest's life; None if this process is no part of it any more."""
        current = not guest.over and self._driver.guests.get(guest.name) is guest
        return self._driver.lives[guest.name] if current else None

    # What follows.

    def _see_to_trouble(self, name: str, life: Life) -> None:
        """Take a guest in trouble out of the rotation at once, and have it ended, unless it is to be kept."""
        driver = self._driver
        driver.scheduler.withdraw(name, life.why, driver.now())
        driver.go_on()
        if life.is_to_be_kept:
            driver.begin(self._mark(str(driver.guests[name].domain.uuid)))
            self._keep_if_still(name, life)
        else:
            driver.request(StopGuest(name))

    def _keep_if_still(self, name: str, life: Life) -> None:
        """Keep a guest for inspection once it stands still: only then nothing can come in between."""
        if life.is_to_be_kept and self._driver.scheduler.phase(name) in (None, Phase.HELD):
            life.happens(Event.KEPT)

    async def _mark(self, uuid: str) -> None:
        """Have a guest that is kept get no turns from a scheduler that comes back, either."""
        with contextlib.suppress(OrchestratorError):  # its process may have ended meanwhile
            await self._driver.launcher.hypervisor.mark_paused(uuid, paused=True)

    def _follow(self, name: str, life: Life) -> None:
        """See to what follows now that a guest's process has gone, or could not be had."""
        how = life.follows(self._driver.now())
        guest = self._driver.guests.get(name)
        if guest is not None and guest.ended is None:  # else it is of an earlier life
            guest.over, guest.pid = True, None
            guest.crashed = life.failed
            guest.ended = how if life.state is State.STOPPED else None
            self._driver.records.ended(guest.domain, how, "failed" if life.failed else "stopped")
        if life.state is State.BACKING_OFF:
            self._driver.begin(self._restart(name, life))

    async def _restart(self, name: str, life: Life) -> None:
        """Start a guest anew when it is due, by the rules for any start, unless its user has no use for it."""
        driver, guest = self._driver, self._driver.wanted[name]
        assert life.due is not None
        await driver.clock.sleep(max(0, life.due - driver.now()) / NANOSECONDS)
        if life.state is not State.BACKING_OFF or driver.lives.get(name) is not life:
            return
        why = life.why
        life.begin_again()
        try:
            _require_program(guest)
            driver.request(guest.request())
        except RefusedError as error:
            life.dismissed = True
            life.launch_failed(f"{why}; not restarted: {error}")
            self._follow(name, life)

    def discard(self, name: str, how: str = "stopped before it was restarted") -> bool:
        """Have a guest that has ended in trouble not be restarted; False if there is none such. `how` is for `ps`."""
        life, guest = self._driver.lives.get(name), self._driver.guests.get(name)
        if life is not None and life.state is State.FAILED and guest is not None and guest.over:
            life.killed(how)  # what follows is that it is given up
            return True
        if life is None or life.state is not State.BACKING_OFF:
            return False
        life.happens(Event.DISCARDED)
        if guest is not None:
            guest.ended = f"{life.why}; {how}"
            self._driver.records.ended(guest.domain, guest.ended, "stopped")
        return True


def _limit(guest: RunningGuest) -> int:
    """Return for how long a guest may be silent, in nanoseconds; 0 for ever."""
    return guest.domain.spec.heartbeat_limit or 0


def _require_program(guest: Guest) -> None:
    """Raise RefusedError for a guest that was taken over: nobody knows by which program it was started."""
    if not guest.emulator:
        raise RefusedError("it was started by a scheduler before this one; start it by its definition")

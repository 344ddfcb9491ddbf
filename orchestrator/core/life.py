"""One guest's life: its state by the lifecycle's table, why it came to that, and what its own time says of it.

Pure, mutable, with one writer, the engine. What is told of a guest comes in: the scheduler's notices, the words of its
QEMU (QMP events: QEMU, *QMP Reference Manual*, "Events" and "run-state"), new lines on its serial port, its end.
What follows goes out as a state and as words for its owner. Moments are nanoseconds of one clock that never goes back.
Each call is O(1), but for the few restarts and reboots that are remembered.

Two channels tell of one end, and the first cause counts: a watchdog that powers a guest off says so, and then QEMU
hangs up without another word, as one does that was killed; libvirt ends a guest that panicked as if it were asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.core.durations import about
from orchestrator.core.lifecycle import HAS_TURNS, Event, State, after
from orchestrator.core.model import GuestSpec, OnCrash
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.plan import PauseGuest, Request, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.restarts import REBOOT_WINDOW, Reboots, Restart, Restarts, Silence

TOLD = ("GUEST_PANICKED", "WATCHDOG", "RESET", "SHUTDOWN")
"""The QMP events that mean something here."""

RUNS = "running"
STANDS = ("paused", "prelaunch", "postmigrate")
"""QEMU's words (QMP, RunState) for a guest whose vCPUs run, and for one that was only told to stand still."""

_PAST = (State.BACKING_OFF, State.STOPPED)


class Cause(NamedTuple):
    """Why a guest ends, or stands still for good: the event, and words for its owner."""

    event: Event
    why: str


CRASHED = Cause(Event.QEMU_CRASHED, "QEMU failed")
"""The cause of an end of which nobody told anything; the words are libvirt's own."""


@dataclass(slots=True)
class Life:
    """A life from its first start to its stop; a restart after trouble goes on with it.

    `asked` is the request that is being carried out. `up` tells whether the guest has ever been launched: a first
    launch that fails is not tried again. `dismissed`: its user wants it neither restarted nor kept any more. `restarts`
    are moments, and `due` the next one. `grace` is how long it may take to shut down, once it is ended.
    """

    spec: GuestSpec
    state: State = State.STARTING
    cause: Cause | None = None
    asked: Request | None = None
    up: bool = False
    dismissed: bool = False
    restarts: tuple[int, ...] = ()
    due: int | None = None
    grace: int = 0
    _ran: int = 0
    _began: int | None = None
    _reboots: Reboots = field(init=False)
    _silence: Silence = field(init=False)

    def __post_init__(self) -> None:
        self._renew()

    # What its user and the engine do.

    def happens(self, event: Event) -> None:
        """Move on by the table. Raises ImpossibleTransitionError as `lifecycle.after`."""
        self.state = after(self.state, event)
        self.up |= event in (Event.LAUNCHED, Event.TURN_BEGINS)

    def blame(self, event: Event, why: str) -> None:
        """Note why it ends, unless that is known."""
        self.cause = self.cause or Cause(event, why)

    def begins(self, request: Request) -> None:
        """Note that a plan for this request has begun."""
        self.asked = request
        match request:
            case ResumeGuest():
                self.happens(Event.RESUME)
            case StopGuest() if self.state is not State.FAILED:  # that is ended for its trouble, not by its user
                self.grace = self.spec.grace if self.state in HAS_TURNS else 0
                self._end(Event.STOP_ASKED, "stopped")

    def found_still(self, *, crashed: bool) -> None:
        """Note that a scheduler that came back found it paused by its user, or kept after its kernel had panicked."""
        self.happens(Event.LAUNCHED)
        if crashed:
            self.trouble(Event.PANICKED, "its kernel panicked")
        self.happens(Event.KEPT if crashed else Event.PAUSE)

    def killed(self, how: str = "killed") -> None:
        """Note that its user has it ended at once; `how` is the word for it."""
        self.grace = 0
        self._end(Event.KILLED, how)

    def _end(self, event: Event, how: str) -> None:
        """Note that its user ends it; if it is in trouble, that stays the cause."""
        self.dismissed = True
        if self.cause is None or not self.failed:
            self.cause = Cause(Event.PROCESS_GONE, how)
        if self.state is State.CRASHED_KEPT:
            self.happens(Event.DISCARDED)
        elif self.state not in (State.STARTING, State.FAILED):  # of those nothing comes but their end
            self.happens(event)

    # What is told of it.

    def told(self, notice: Notice) -> bool:
        """Take in what the scheduler tells; True if its process has gone, or could not be had."""
        match notice.what:
            case Happening.TURN_BEGAN:
                self.happens(Event.TURN_BEGINS)
                self._began, self._silence = notice.at, self._silence.begins(notice.at)
            case Happening.TURN_ENDED:
                self.happens(Event.TURN_ENDS)
                self._ran, self._began = self._own_time(notice.at), None
                self._silence = self._silence.ends(notice.at)
            case Happening.ENLISTED if self.state is State.STARTING:
                self.happens(Event.LAUNCHED)
            case Happening.DONE | Happening.UNDONE | Happening.QUARANTINED | Happening.GONE:
                asked, self.asked = self.asked, None
                return self._settled(notice, asked)
        return False

    def _settled(self, notice: Notice, asked: Request | None) -> bool:
        match notice.what, asked:
            case (Happening.GONE, _) | (Happening.DONE, StopGuest()):
                self.cause = self.cause or CRASHED
                self.happens(Event.QEMU_CRASHED if self.failed else Event.PROCESS_GONE)
                return True
            case Happening.UNDONE, StartGuest():
                self.launch_failed(notice.why)
                return True
            case Happening.DONE, StartGuest(staged=True):
                self.happens(Event.LAUNCHED)
                self.happens(Event.PAUSE)
            case (Happening.DONE, PauseGuest()) | (Happening.UNDONE, ResumeGuest()):
                self.happens(Event.PAUSE)
            case Happening.QUARANTINED, _:
                self.happens(Event.DID_NOT_CONFIRM)
                self.blame(Event.DID_NOT_CONFIRM, notice.why)
        return False

    def launch_failed(self, why: str) -> None:
        """Note that there is no process, and why."""
        self.happens(Event.LAUNCH_FAILED)
        self.cause = Cause(Event.LAUNCH_FAILED, why)

    def says(self, name: str, data: Mapping[str, Any], now: int) -> bool:
        """Take in a QMP event; True if that is trouble, and news."""
        match name:
            case "GUEST_PANICKED":
                return self.trouble(Event.PANICKED, "its kernel panicked")
            case "WATCHDOG" if data.get("action") != "reset":
                return self.trouble(Event.WATCHDOG_FIRED, f"its watchdog fired ({data.get('action')})")
            case "RESET" if data.get("guest"):
                return self._reboots_once_more(now)
            case "SHUTDOWN" if data.get("reason") == "guest-reset":
                if self._reboots_once_more(now):
                    return True
                self.blame(Event.PROCESS_GONE, "rebooted")
            case "SHUTDOWN" if data.get("reason") == "guest-panic":
                return self.trouble(Event.PANICKED, "its kernel panicked")
            case "SHUTDOWN":
                how = "shut down" if data.get("guest") else f"ended by somebody else ({data.get('reason')})"
                self.blame(Event.PROCESS_GONE, how)
        return False

    def trouble(self, event: Event, why: str) -> bool:
        """Note trouble; True if that is news, and not about what is settled already."""
        if self.state in _PAST:
            return False
        before = self.state
        self.happens(event)
        if before is self.state:
            return False
        self.cause, self.asked = Cause(event, why), None
        return True

    def heard(self, now: int) -> None:
        """Note that there was a new line on its serial port."""
        self._silence = self._silence.heard(now)

    def is_silent(self, now: int) -> bool:
        """Whether it should have said something by now; False if that is not asked of it, or it has no turns."""
        return self.state in HAS_TURNS and self._silence.is_too_long(now)

    # What follows.

    @property
    def why(self) -> str:
        """Why it ends, or stands still for good."""
        return (self.cause or CRASHED).why

    @property
    def failed(self) -> bool:
        """Whether it ends for trouble, and not since somebody wanted it to."""
        return (self.cause or CRASHED).event is not Event.PROCESS_GONE

    @property
    def is_to_be_kept(self) -> bool:
        """Whether what is left of it in trouble is for inspection."""
        return self.state is State.FAILED and self.spec.on_crash is OnCrash.KEEP and not self.dismissed

    def follows(self, now: int) -> str:
        """Go on after its process has gone, and return how it ended in words for its owner.

        It backs off until `due`, if its definition wants it restarted, or it has stopped.
        """
        if self.state is not State.FAILED:
            return self.why
        rules = self.spec.restart_rules
        if rules is None or self.dismissed or not self.up:
            self.happens(Event.GIVEN_UP)
            return self.why
        outcome = Restarts(rules).after_failure(self.restarts, now)
        if isinstance(outcome, Restart):
            self.happens(Event.BACK_OFF)
            self.due, self.restarts = outcome.at, outcome.history
            return f"{self.why}; restarted in {about(outcome.at - now)}"
        self.happens(Event.GIVEN_UP)
        return f"{self.why}; given up: {outcome.why}"

    def begin_again(self) -> None:
        """Begin with another process, after a restart."""
        self.happens(Event.RESTART_DUE)
        self.cause, self.due, self.grace = None, None, 0
        self._renew()

    def _renew(self) -> None:
        self._ran, self._began = 0, None
        self._reboots = Reboots.of(self.spec)
        self._silence = Silence(self.spec.heartbeat_limit)

    def _own_time(self, now: int) -> int:
        return self._ran + (0 if self._began is None else now - self._began)

    def _reboots_once_more(self, now: int) -> bool:
        self._reboots = self._reboots.after(self._own_time(now))
        if not self._reboots.is_loop:
            return False
        if not self._reboots.most:
            return self.trouble(Event.REBOOT_LOOP, "it rebooted, which a bare-metal image never does on purpose")
        times = f"{len(self._reboots.at)} times within {REBOOT_WINDOW} of its own time"
        return self.trouble(Event.REBOOT_LOOP, f"it rebooted {times}")

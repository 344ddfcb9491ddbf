"""When a guest in trouble is restarted, and when it is given up; and what counts as trouble that nobody reports.

Pure values: moments and lengths are in nanoseconds of one clock that never goes back, and come in as arguments.
Which trouble leads here is said in `lifecycle`; each call is O(restarts or reboots that are remembered), a few.

**Back-off.** The first restart waits for `backoff`, each further one twice as long as the one before, `most` at the
longest. At most `limit` restarts happen within any `window`: trouble that would need one more ends in `GiveUp`.
Restarts that are further back than the window are forgotten, so quiet time forgives: first the delays become shorter
again, and after a whole quiet window a guest is as good as new.

**Own time.** A shared guest that waits for its turn can neither boot nor speak. Reboots and silence are therefore
counted in the time that a guest has run, the sum of its turns; one that always runs has no other time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.core.durations import Duration
from orchestrator.core.model import GuestSpec, PayloadBoot, RestartRules

MOST_REBOOTS = 5
"""A guest that reboots more often than this within `REBOOT_WINDOW` of its own time is in a reboot loop.

An installation reboots once or twice, an update hardly more; a kernel that panics as it boots needs seconds for each
round, and a PC that runs into triple faults comes to thirty in a second (measured).
"""

MOST_PAYLOAD_REBOOTS = 0
"""A bare-metal payload never reboots on purpose: libvirt ends it at the first time, and that is trouble."""

REBOOT_WINDOW = Duration.parse("10 min")


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the guest `at` this moment. `history` is what to judge its next trouble by, `limit` moments at most."""

    at: int
    history: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Restart the guest no more; `why` is for its owner to read."""

    why: str


@dataclass(frozen=True, slots=True)
class Restarts:
    """How a guest is restarted, by the rules of its definition."""

    rules: RestartRules

    def after_failure(self, history: Iterable[int], now: int) -> Restart | GiveUp:
        """Return what follows trouble at `now`; `history` has the moments of the restarts before, in any order."""
        rules = self.rules
        recent = tuple(sorted(moment for moment in history if now - moment < rules.window))
        if len(recent) >= rules.limit:
            times = f"{len(recent)} times" if len(recent) > 1 else "once"
            return GiveUp(f"restarted {times} within {rules.window}, which is all that its definition allows")
        at = now + self.delay(len(recent))
        return Restart(at, (*recent, at))

    def delay(self, before: int) -> int:
        """Return how long the restart after this many recent ones waits."""
        doublings = min(before, int(self.rules.most).bit_length())  # more cannot matter, and would make huge numbers
        return min(self.rules.backoff << doublings, self.rules.most)


@dataclass(frozen=True, slots=True)
class Reboots:
    """How often a guest has rebooted of late; `at` are the moments, in its own time, at most one too many."""

    most: int = MOST_REBOOTS
    at: tuple[int, ...] = ()

    @classmethod
    def of(cls, spec: GuestSpec) -> Reboots:
        """Return the count of a guest that has just been launched."""
        return cls(MOST_PAYLOAD_REBOOTS if isinstance(spec.boot, PayloadBoot) else MOST_REBOOTS)

    def after(self, now: int) -> Reboots:
        """Return the count after one more reboot at `now`."""
        recent = (moment for moment in self.at if now - moment < REBOOT_WINDOW)
        return replace(self, at=(*recent, now)[-self.most - 1 :])

    @property
    def is_loop(self) -> bool:
        """Whether these are too many."""
        return len(self.at) > self.most


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a guest has run since it last said something; `limit` as its definition has it, None: it need not.

    `ran` is its own time since then, up to the present turn, which began at `began`; None between two turns.
    """

    limit: int | None
    ran: int = 0
    began: int | None = None

    def heard(self, now: int) -> Silence:
        """Return the silence after there was a new line on the serial port."""
        return replace(self, ran=0, began=None if self.began is None else now)

    def begins(self, now: int) -> Silence:
        """Return the silence as a turn begins; fine if one is going on."""
        return self if self.began is not None else replace(self, began=now)

    def ends(self, now: int) -> Silence:
        """Return the silence after a turn has ended; fine if none was going on."""
        return self if self.began is None else replace(self, ran=self.ran + now - self.began, began=None)

    def is_too_long(self, now: int) -> bool:
        """Whether the guest should have said something by now."""
        due = self.due
        return due is not None and now >= due

    @property
    def due(self) -> int | None:
        """By when the guest has to say something, if its turn goes on; None if it need not, or has no turn."""
        if self.limit is None or self.began is None:
            return None
        return self.began + self.limit - self.ran

"""Hand-overs: from "this guest is to stop, that one to run" to acts that are confirmed one by one.

Rule two of the house is kept here: a guest's vCPUs run only between the grant of all its locks and the confirmation
of its stop, and who comes next waits for that confirmation. Different cores hand over at the same time. Pure: acts
go out as values, and what became of them comes in as calls; whoever calls does the acts in the order given.

::

                 locks free             confirmed
    . -> ASSIGNED ----------> CONTINUING ----------> RUNNING
             | (never ran)         | halt: after        | halt
             v                     v confirmation       v           confirmed
             .                                      SUSPENDING ------------------> . or HELD

An exclusive guest's hold is kept over a stop (HELD); a shared one's ends with it. In any phase in which it has its
hold, further cores can be claimed into it, and some of them released, so that it moves from the ones to the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.acts import Continue, Halt, Phase
from orchestrator.core.locks import Hold, Locks, LockState
from orchestrator.errors import UsageError


@dataclass(slots=True)
class _Seat:
    """A guest that has cores, or is to have them; `next` are those it is to have after the stop that is under way.

    `cores` are where it is, or is to be; its hold has them, and while it moves others beside them, of which it still
    waits for `claimed`. `awaited` is the number of the act whose confirmation is outstanding, 0 if there is none.
    """

    cores: tuple[int, ...]
    phase: Phase
    keeps: bool
    hold: Hold | None = None
    awaited: int = 0
    halting: bool = False
    next: tuple[int, ...] | None = None
    claimed: tuple[int, ...] = ()

    @property
    def token(self) -> int:
        """The fencing token of its hold; only who has its cores is told anything."""
        assert self.hold is not None
        return self.hold.token


class Handovers:
    """All guests that hold locks or wait for them, and the acts that are due.

    `limit` is how long, in nanoseconds, a guest may take to confirm. Each call grows with the cores that it names,
    and with those that wait for them.
    """

    def __init__(self, locks: Locks, limit: int) -> None:
        self._locks = locks
        self._limit = limit
        self._seats: dict[str, _Seat] = {}
        self._pinned: dict[str, tuple[int, ...]] = {}
        self._acts: list[Continue | Halt] = []
        self._granted: list[str] = []
        # Each act's deadline is later than the one before, so the first is always the earliest.
        self._deadlines: deque[tuple[int, str, int]] = deque()
        self._told = 0

    def phase(self, guest: str) -> Phase | None:
        """Return where a guest is; None if it neither has cores nor is to have any."""
        seat = self._seats.get(guest)
        return seat.phase if seat else None

    def awaits_others(self, guest: str) -> bool:
        """Whether a guest is to run as soon as others have stopped."""
        return self.phase(guest) is Phase.ASSIGNED

    def cores(self, guest: str) -> tuple[int, ...]:
        """Return the cores that a guest holds, ascending."""
        seat = self._seats.get(guest)
        return seat.hold.cores if seat and seat.hold else ()

    def locks(self) -> LockState:
        """Return who holds and who awaits which cores. Growth: n log n in the holds."""
        return self._locks.snapshot()

    def acts(self) -> list[Continue | Halt]:
        """Return the acts that have become due since the last call, in order."""
        acts, self._acts = self._acts, []
        return acts

    @property
    def has_granted(self) -> bool:
        """Whether `granted` would return anybody."""
        return bool(self._granted)

    def granted(self) -> list[str]:
        """Return the guests that have got the locks they asked for by `lock` or `claim` since the last call."""
        granted, self._granted = self._granted, []
        return granted

    def set_limit(self, limit: int, now: int) -> None:
        """Change how long a guest may take; who has been told something already has no longer, nor less from now on."""
        self._limit = limit
        self._deadlines = deque((min(by, now + limit), guest, told) for by, guest, told in self._deadlines)

    def launched(self, guest: str, cores: tuple[int, ...]) -> None:
        """Note where a guest's threads are pinned."""
        self._pinned[guest] = cores

    def adopt(self, guest: str, cores: tuple[int, ...], now: int, *, running: bool, keeps: bool) -> None:
        """Take over a guest that was found on these cores. Raises UsageError if somebody else holds one of them."""
        hold = self._locks.acquire(guest, cores, now)
        if not isinstance(hold, Hold):
            others = ", ".join(f"core {core} is {other}'s" for core, other in hold.cores)
            raise UsageError(f"{guest}: cannot be taken over where it runs: {others}")
        self._seats[guest] = _Seat(hold.cores, Phase.RUNNING if running else Phase.HELD, keeps, hold)
        self._pinned[guest] = hold.cores

    def assign(self, guest: str, cores: tuple[int, ...], now: int) -> None:
        """Let a shared guest run on these cores as soon as all are free."""
        seat = self._seats.get(guest)
        if seat is None:
            self._sit(guest, _Seat(cores, Phase.ASSIGNED, keeps=False), now)
        else:  # it was told to stop, and has not done so yet
            seat.next = cores

    def lock(self, guest: str, cores: tuple[int, ...], now: int) -> None:
        """Take the locks of an exclusive guest's cores as soon as all are free; `granted` tells when."""
        self._sit(guest, _Seat(cores, Phase.ASSIGNED, keeps=True), now)

    def claim(self, guest: str, cores: tuple[int, ...], now: int) -> None:
        """Take further cores into a guest's hold as soon as all are free; until then it `is_claiming`."""
        seat = self._seats[guest]
        seat.claimed = cores
        if not self._try(guest, seat, now):
            self._locks.wait(guest, cores)

    def is_claiming(self, guest: str) -> bool:
        """Whether a guest waits for further cores."""
        seat = self._seats.get(guest)
        return seat is not None and bool(seat.claimed)

    def release(self, guest: str, cores: tuple[int, ...], now: int) -> None:
        """Give back cores of a guest's hold on which it is not, and claim none any more; fine if it has none."""
        seat = self._seats.get(guest)
        if seat is None or seat.hold is None:
            return
        self._locks.leave(guest)
        left = set(seat.hold.cores).difference(cores)
        freed = {*seat.claimed, *seat.hold.cores} - left
        seat.claimed = ()
        if left != set(seat.hold.cores):
            seat.hold = self._locks.shrink(seat.hold, left)
        self._offer(freed, now)

    def settle(self, guest: str, cores: tuple[int, ...]) -> None:
        """Note that a guest's threads are on these cores now, which its hold has."""
        self._seats[guest].cores = self._pinned[guest] = cores

    def resume(self, guest: str, now: int) -> None:
        """Let the vCPUs of a guest that holds its cores run."""
        self._continue(guest, self._seats[guest], now)

    def halt(self, guest: str, now: int) -> None:
        """Stop a guest, wherever it is; fine if it is not running."""
        seat = self._seats.get(guest)
        if seat is None:
            return
        seat.next = None
        match seat.phase:
            case Phase.ASSIGNED:
                self._drop(guest, now)
            case Phase.CONTINUING:
                seat.halting = True
            case Phase.RUNNING:
                self._halt(guest, seat, now)

    def continued(self, guest: str, now: int) -> bool:
        """Note that a guest has confirmed that it runs; False if that was not awaited."""
        seat = self._seats.get(guest)
        if seat is None or seat.phase is not Phase.CONTINUING:
            return False
        seat.phase, seat.awaited = Phase.RUNNING, 0
        if seat.halting:
            seat.halting = False
            self._halt(guest, seat, now)
        return True

    def halted(self, guest: str, now: int) -> bool:
        """Note that a guest has confirmed that it stands still; False if that was not awaited."""
        seat = self._seats.get(guest)
        if seat is None or seat.phase is not Phase.SUSPENDING:
            return False
        if seat.keeps:
            seat.phase, seat.awaited = Phase.HELD, 0
            return True
        after = seat.next
        self._drop(guest, now)
        if after is not None:
            self.assign(guest, after, now)
        return True

    def successor(self, guest: str) -> Continue | None:
        """Return what `halted` would have done first, where that is to let the next guest run as it stands now.

        None where it is anything else, or nothing: then nothing is lost but time. Growth: the cores that change hands.
        """
        seat = self._seats.get(guest)
        if seat is None or seat.phase is not Phase.SUSPENDING or seat.keeps or seat.hold is None or seat.claimed:
            return None
        for core in seat.hold.cores:
            heir = self._locks.heir(core)
            if heir is None:
                continue
            other = self._seats[heir]
            hold = self._locks.would_acquire(heir, other.claimed or other.cores, seat.hold)
            if hold is not None:
                at_once = other.hold is None and not other.keeps and self._pinned.get(heir) == other.cores
                return Continue(heir, other.cores, False, hold.token) if at_once else None
        return None

    def unlock(self, guest: str, now: int) -> None:
        """Give back what a guest holds or waits for; it must not be running."""
        if guest in self._seats:
            self._drop(guest, now)

    def gone(self, guest: str, now: int) -> None:
        """Give back what a guest held whose process is no more."""
        self._pinned.pop(guest, None)
        self.unlock(guest, now)

    def overdue(self, now: int) -> list[str]:
        """Return the guests that have not confirmed in time, each once."""
        late = []
        while self._deadlines and (self._settled(self._deadlines[0]) or self._deadlines[0][0] <= now):
            entry = self._deadlines.popleft()
            if not self._settled(entry):
                late.append(entry[1])
        return late

    def deadline(self) -> int | None:
        """Return by when the next confirmation has to be there, if one is awaited."""
        while self._deadlines and self._settled(self._deadlines[0]):
            self._deadlines.popleft()
        return self._deadlines[0][0] if self._deadlines else None

    def _settled(self, entry: tuple[int, str, int]) -> bool:
        seat = self._seats.get(entry[1])
        return seat is None or seat.awaited != entry[2]

    def _sit(self, guest: str, seat: _Seat, now: int) -> None:
        self._seats[guest] = seat
        if not self._try(guest, seat, now):
            self._locks.wait(guest, seat.cores)

    def _try(self, guest: str, seat: _Seat, now: int) -> bool:
        if not self._locks.could_acquire(guest, seat.claimed or seat.cores):
            return False
        if seat.hold is not None:
            more = self._locks.extend(seat.hold, seat.claimed)
            assert isinstance(more, Hold)
            seat.hold, seat.claimed = more, ()
            self._granted.append(guest)
            return True
        hold = self._locks.acquire(guest, seat.cores, now)
        assert isinstance(hold, Hold)
        seat.hold = hold
        if seat.keeps:
            seat.phase = Phase.HELD
            self._granted.append(guest)
        else:
            self._continue(guest, seat, now)
        return True

    def _continue(self, guest: str, seat: _Seat, now: int) -> None:
        moved = self._pinned.get(guest) != seat.cores
        self._pinned[guest] = seat.cores
        seat.phase = Phase.CONTINUING
        self._tell(Continue(guest, seat.cores, moved, seat.token), seat, now)

    def _halt(self, guest: str, seat: _Seat, now: int) -> None:
        seat.phase = Phase.SUSPENDING
        self._tell(Halt(guest, seat.cores, seat.token), seat, now)

    def _tell(self, act: Continue | Halt, seat: _Seat, now: int) -> None:
        self._told += 1
        seat.awaited = self._told
        self._acts.append(act)
        self._deadlines.append((now + self._limit, act.guest, self._told))

    def _drop(self, guest: str, now: int) -> None:
        """Take a guest's seat away, and let those try that waited for its cores."""
        seat = self._seats.pop(guest)
        if seat.hold is None or seat.claimed:
            self._locks.leave(guest)
        if seat.hold is None:
            self._offer(seat.cores, now)
        else:
            self._locks.release(seat.hold)
            self._offer((*seat.hold.cores, *seat.claimed), now)

    def _offer(self, cores: Iterable[int], now: int) -> None:
        """Let those try that wait for cores which may be free now."""
        for core in cores:
            waiter = self._locks.next_for(core)
            if waiter is not None:
                self._try(waiter, self._seats[waiter], now)

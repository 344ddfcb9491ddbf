"""What the guard does: each emergency act is written down, then done, then waited for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.consoles import why_not_local
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.emergency import REFUSED, Act, Reply, Request, Standing
from orchestrator.errors import HostError, OrchestratorError
from orchestrator.guard.callers import Caller
from orchestrator.guard.guests import Guest, Guests, cores_of, hurry, send, stands_still, wait_for_end
from orchestrator.guard.ledger import Ledger, Written

NANOSECONDS = 1_000_000_000

_END_LIMIT = 5.0
"""Seconds that a killed process has to be gone; the kernel may have to free much memory."""

_STILL_LIMIT = 1.0
"""Seconds that stopped threads have to be seen so; each has to run for a moment to stop."""

_TRIES, _TRIES_PER_SECOND = 20.0, 1.0
"""So many refused tries are recorded at once, and so many more each second; more are counted."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the guard has of the world. `wall` is nanoseconds since 1970.

    `consoles` are those that the policy names, `reserved` the cores that no guest may have, `heart` says how the
    scheduler is.
    """

    wall: Callable[[], int]
    consoles: Callable[[], Sequence[str]]
    reserved: frozenset[int]
    heart: Callable[[], str]


class Acts:
    """Obeys whoever stands at a console of this machine, and nobody else. `standing` is what held before."""

    def __init__(self, ledger: Ledger, guests: Guests, standing: Standing, around: Surroundings) -> None:
        self.standing = standing
        self._ledger = ledger
        self._guests = guests
        self._around = around
        self._writing = threading.Lock()
        self._tries, self._tried_at, self._unrecorded = _TRIES, time.monotonic(), 0

    def obey(self, caller: Caller, request: Request) -> Reply:
        """Do what is asked, if he may; a try that is refused is recorded. Never raises an OrchestratorError."""
        began = time.monotonic_ns()
        why = why_not_local(caller.line, remote=caller.remote, consoles=self._around.consoles())
        if why:
            return self.refuse(caller, why, request)
        try:
            with self._guests.lock:  # so that no handle is closed meanwhile
                reply = self._done(caller, request)
        except OrchestratorError as error:
            return Reply(error.exit_code, tuple(error.lines()))
        took = time.monotonic_ns() - began
        return Reply(reply.code, reply.lines, {**reply.data, "took_ns": took})

    def refuse(self, caller: Caller, why: str, request: Request | None = None) -> Reply:
        """Record that somebody was refused, unless that fills the journal, and return what he is told."""
        now = time.monotonic()
        self._tries = min(_TRIES, self._tries + (now - self._tried_at) * _TRIES_PER_SECOND)
        self._tried_at = now
        line = f"refused: {why}; this is for root at a console of this machine (tty1, ttyS0, hvc0, ...)"
        if self._tries < 1:
            self._unrecorded += 1
            return Reply(3, (line,))
        self._tries -= 1
        body: dict[str, Any] = {"why": why, "by": caller.described()}
        if request is not None:
            body |= {"act": request.act, "reason": request.reason}
        if self._unrecorded:
            body["unrecorded_before"] = self._unrecorded
        try:
            self.record(REFUSED, body, urgent=False)
        except HostError as error:
            return Reply(3, (line, str(error)))
        self._unrecorded = 0
        return Reply(3, (line,))

    def record(self, kind: str, body: Mapping[str, Any], *, urgent: bool = True) -> Written:
        """Return when this is written down, and holds. HostError if it cannot be: then do nothing."""
        with self._writing:
            written = self._ledger.write(kind, body, urgent=urgent)
            self.standing = self.standing.after(written.record)
            return written

    def _done(self, caller: Caller, request: Request) -> Reply:
        match request.act:
            case Act.STATUS:
                return self._status()
            case Act.JOURNAL:
                return self._tail(request.last)
            case Act.KILL | Act.FREEZE | Act.THAW:
                return self._on_guests(caller, request, self._guests.chosen(request.guests, request.user))
            case Act.RECLAIM:
                reserved = self._around.reserved & set(request.cores)
                if reserved:
                    return Reply(
                        2, (f"reclaim: cores {format_cpulist(reserved)} are no guest's; name cores of the pool",)
                    )
                return self._on_guests(caller, request, self._guests.on(request.cores))
        written = self._recorded(caller, request, ())
        return _noting(written, Reply(0, (self._told(request),)))

    def _on_guests(self, caller: Caller, request: Request, guests: Sequence[Guest]) -> Reply:
        missing = sorted(set(request.guests) - {guest.name for guest in guests})
        if missing:
            return Reply(2, (f"{request.act}: no guest of this host is called {', '.join(missing)}; nothing was done",))
        if not guests:
            whose = f"of {request.user}" if request.user else f"on cores {format_cpulist(request.cores)}"
            return Reply(0, (f"{request.act}: there is no guest {whose}",), {"guests": []})
        cores = {guest.uuid: cores_of(guest.pid) for guest in guests}
        written = self._recorded(caller, request, guests)
        left = self._act(request.act, guests)
        lines = [self._about(request.act, guest, cores[guest.uuid], guest in left) for guest in guests]
        reply = Reply(1 if left else 0, tuple(lines), {"guests": [guest.name for guest in guests]})
        return _noting(written, reply)

    def _act(self, act: Act, guests: Sequence[Guest]) -> list[Guest]:
        """Signal all of them; return those of which it cannot be seen that they obeyed."""
        if act is Act.THAW:
            send(guests, signal.SIGCONT)
            return []
        if act is Act.FREEZE:
            send(guests, signal.SIGSTOP)
            until = time.monotonic() + _STILL_LIMIT
            while (left := [guest for guest in guests if not stands_still(guest.pid)]) and time.monotonic() < until:
                time.sleep(0.001)
            return left
        send(guests, signal.SIGKILL)
        hurry(guests)
        return wait_for_end(guests, _END_LIMIT)

    def _about(self, act: Act, guest: Guest, cores: Iterable[int], left: bool) -> str:
        where = format_cpulist(cores)
        who = f"{guest.name} (process {guest.pid}, of {guest.owner or 'an unknown owner'})"
        if left:
            return f"{who}: {'still running' if act is Act.FREEZE else 'signalled, but not gone yet'}; cores {where}"
        if act is Act.FREEZE:
            return f"{who}: frozen"
        if act is Act.THAW:
            return f"{who}: goes on"
        return f"{who}: ended; cores {where} are free"

    def _recorded(self, caller: Caller, request: Request, guests: Sequence[Guest]) -> Written:
        body: dict[str, Any] = {"reason": request.reason, "by": caller.described()}
        if guests:
            body["guests"] = [guest.described() for guest in guests]
        if request.user:
            body["user"] = request.user
        if request.cores:
            body["cores"] = format_cpulist(request.cores)
        if request.act is Act.BAN:
            body["until"] = None if request.seconds is None else self._around.wall() + request.seconds * NANOSECONDS
        return self.record(request.act, body)

    def _told(self, request: Request) -> str:
        match request.act:
            case Act.BAN:
                ends = "until it is lifted" if request.seconds is None else f"for {request.seconds} s"
                return f"{request.user} is banned {ends}; his guests go on (`kill --user {request.user}` ends them)"
            case Act.UNBAN:
                return f"{request.user} is banned no more by the console; the policy may still say so"
            case Act.LOCKDOWN:
                return "lockdown: the scheduler takes no requests until it is lifted; guests go on"
        return "the lockdown is lifted"

    def _status(self) -> Reply:
        now, standing = self._around.wall(), self.standing
        guests = self._guests.all()
        rows = [
            {**guest.described(), "frozen": (guest.uuid, guest.pid, guest.began) in standing.frozen} for guest in guests
        ]
        bans = {user: ban.reason for user in standing.bans if (ban := standing.ban(user, now)) is not None}
        lines = [f"scheduler: {self._around.heart()}"]
        lines += [
            f"{row['name']}: process {row['pid']}, of {row['owner'] or 'an unknown owner'}, cores {row['cores']}"
            f"{', frozen' if row['frozen'] else ''}"
            for row in rows
        ]
        lines += [f"banned: {user}: {reason}" for user, reason in sorted(bans.items())]
        if standing.lockdown is not None:
            lines.append(f"lockdown: {standing.lockdown}")
        head, owed, trouble = self._ledger.head, self._ledger.owed, self._ledger.trouble
        lines.append(f"journal: {head.seq} records, the last one's hash is {head.hash}")
        lines += [f"journal: {owed} of them are not on the disk yet"] if owed else []
        lines += [f"journal: {trouble}"] if trouble else []
        data = {"guests": rows, "bans": bans, "lockdown": standing.lockdown, "head": list(head), "owed": owed}
        return Reply(0, tuple(lines), {**data, "trouble": trouble, "scheduler": self._around.heart()})

    def _tail(self, last: int) -> Reply:
        lines, data = [], []
        for record in list(self._ledger.recent)[-max(1, last) :]:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.at // NANOSECONDS))
            body = record.body
            what = ", ".join(each["name"] for each in body.get("guests", ())) or body.get("user", "")
            why = body.get("reason") or body.get("why", "")
            lines.append(
                " ".join(part for part in (str(record.seq), at, record.kind, what, why and f"({why})") if part)
            )
            data.append({"seq": record.seq, "at": record.at, "kind": record.kind, "body": dict(body)})
        return Reply(0, tuple(lines), {"records": data})


def _noting(written: Written, reply: Reply) -> Reply:
    """Return a reply that also says if what was done stands on no disk yet."""
    if not written.late:
        return reply
    line = f"note: record {written.record.seq} is not on the disk yet: {written.late}; it is in the reserve in memory"
    return Reply(reply.code, (*reply.lines, line), {**reply.data, "late": written.late})

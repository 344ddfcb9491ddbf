"""The emergency console: what may be asked there, and what of it goes on to hold. Values and decisions only.

What holds is what the guard's journal says, from its first record on: there is no second place to disagree with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from orchestrator.core.journal import Record
from orchestrator.errors import UsageError

MOST_BYTES = 16 * 1024
"""The longest request."""

_MOST_NAMES = 256
_MOST_TEXT = 500


class Act(StrEnum):
    """What may be asked. All but `LOOKS` are emergency acts: each has a reason, and is recorded before it is done."""

    KILL = "kill"
    FREEZE = "freeze"
    THAW = "thaw"
    BAN = "ban"
    UNBAN = "unban"
    RECLAIM = "reclaim"
    LOCKDOWN = "lockdown"
    LIFT = "lift"
    STATUS = "status"
    JOURNAL = "journal"


LOOKS = frozenset((Act.STATUS, Act.JOURNAL))
"""What only looks, and needs no reason."""

REFUSED = "refused"
"""The kind of the record of a try that was refused."""

LATE = "late"
"""The kind of a record that says of others before it that they were not on the disk yet as their acts were done."""

_ON_GUESTS = frozenset((Act.KILL, Act.FREEZE, Act.THAW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One act: on `guests` by name, or on all of `user`, or on whoever is on `cores`. `seconds` is for how long."""

    act: Act
    reason: str = ""
    guests: tuple[str, ...] = ()
    user: str = ""
    cores: tuple[int, ...] = ()
    seconds: int | None = None
    last: int = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it: an exit code, and lines to read. `data` is the same for programs."""

    code: int
    lines: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


def encode_request(request: Request) -> bytes:
    """Return a request's bytes."""
    fields = {name: getattr(request, name) for name in Request.__dataclass_fields__}
    return json.dumps(fields).encode()


def decode_request(data: bytes) -> Request:
    """Return the request in these bytes; raises UsageError if they are none, or if something is missing in it."""
    try:
        fields = json.loads(data[:MOST_BYTES])
        request = Request(
            act=Act(fields["act"]),
            reason=" ".join(str(fields.get("reason") or "").split()),
            guests=tuple(map(str, fields.get("guests") or ())),
            user=str(fields.get("user") or ""),
            cores=tuple(map(int, fields.get("cores") or ())),
            seconds=None if fields.get("seconds") is None else int(fields["seconds"]),
            last=int(fields.get("last") or 20),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UsageError("this is no request to the guard; `orchestrator admin --help` has those that are") from None
    why = _why_incomplete(request)
    if why:
        raise UsageError(f"{request.act}: {why}")
    return request


def _why_incomplete(request: Request) -> str:
    act, texts = request.act, (request.reason, request.user, *request.guests)
    faults = (
        (
            len(request.guests) + len(request.cores) > _MOST_NAMES or any(len(text) > _MOST_TEXT for text in texts),
            f"at most {_MOST_NAMES} names of at most {_MOST_TEXT} characters",
        ),
        (not all(text.isprintable() for text in texts), "names and reasons are printable"),
        (
            act not in LOOKS and not request.reason,
            "it needs a reason, which stands in the journal; give --reason",
        ),
        (
            act in _ON_GUESTS and bool(request.guests) == bool(request.user),
            "name guests, or the one user whose they are",
        ),
        (
            act in (Act.BAN, Act.UNBAN) and request.user in ("", "root"),
            "name a user; root cannot be banned",
        ),
        (act is Act.RECLAIM and not request.cores, "name the cores"),
        (request.seconds is not None and request.seconds < 1, "a time is a second or more"),
    )
    return next((why for wrong, why in faults if wrong), "")


def encode_reply(reply: Reply) -> bytes:
    """Return a reply's bytes."""
    return json.dumps({"code": reply.code, "lines": reply.lines, "data": reply.data}).encode()


def decode_reply(data: bytes) -> Reply:
    """Return the reply in these bytes. Raises UsageError if they are none."""
    try:
        fields = json.loads(data)
        return Reply(int(fields["code"]), tuple(map(str, fields["lines"])), dict(fields["data"]))
    except (ValueError, TypeError, KeyError):
        raise UsageError("the guard's answer makes no sense; is it of another version?") from None


@dataclass(frozen=True, slots=True)
class Banned:
    """Why a user gets nothing, and until when (nanoseconds since 1970); None: until somebody lifts the ban."""

    reason: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds after the acts so far: who is banned, why there is a lockdown, and which guests are frozen.

    A guest is its uuid, its process, and when that began: another one of its name is not frozen.
    """

    bans: Mapping[str, Banned] = field(default_factory=dict)
    lockdown: str | None = None
    frozen: frozenset[tuple[str, int, int]] = frozenset()

    def ban(self, user: str, now: int) -> Banned | None:
        """Return the ban that is on a user now, if there is one."""
        found = self.bans.get(user)
        return None if found is None or (found.until is not None and found.until <= now) else found

    def after(self, record: Record) -> Standing:
        """Return what holds after one more act. A record that is none changes nothing."""
        body, reason = record.body, str(record.body.get("reason", ""))
        them = frozenset((each["uuid"], each["pid"], each["began"]) for each in targets(record))
        changes: dict[str, dict[str, Any]] = {
            Act.BAN: {"bans": {**self.bans, body.get("user", ""): Banned(reason, body.get("until"))}},
            Act.UNBAN: {"bans": {user: ban for user, ban in self.bans.items() if user != body.get("user")}},
            Act.LOCKDOWN: {"lockdown": reason},
            Act.LIFT: {"lockdown": None},
            Act.FREEZE: {"frozen": self.frozen | them},
            Act.THAW: {"frozen": self.frozen - them},
        }
        return replace(self, **changes.get(record.kind, {}))


def standing_after(records: Iterable[Record]) -> Standing:
    """Return what holds after these acts, the first ones of a journal."""
    standing = Standing()
    for record in records:
        standing = standing.after(record)
    return standing


def targets(record: Record) -> tuple[Mapping[str, Any], ...]:
    """Return the guests that an act was on: ``name``, ``uuid``, ``pid``, ``began``, ``owner`` and ``cores`` of each."""
    return tuple(record.body.get("guests", ()))

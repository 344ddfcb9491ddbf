"""What travels between a client and the daemon: JSON, versioned by the path's prefix; and errors as they travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from orchestrator.errors import (
    FailedError,
    HostError,
    OrchestratorError,
    OutcomeUnknownError,
    RefusedError,
    UsageError,
)

PREFIX = "/v1"
"""The path's first part; what it stands for is only ever added to."""

USER = "user"
"""The query with which an admin acts for another."""

MOST_BODY = 4 * 1024 * 1024
"""The longest body of a request, in bytes: some sixteen of the largest definitions."""

MOST_GUESTS = 1000
"""How many guests one request may start."""

ACT_LIMIT = 300.0
"""Seconds for which a caller waits for an act. The act goes on after them, and the caller is told that it does."""


class NoSuchGuestError(UsageError):
    """There is no guest of this name."""


class ForbiddenError(RefusedError):
    """The guest, or the act, is not this caller's."""


class InUseError(RefusedError):
    """A guest needs it."""


class BannedError(RefusedError):
    """The caller gets nothing but the reason."""


class TooManyError(RefusedError):
    """The caller asks for too much at once; `retry_after` is in how many seconds he may ask again."""

    def __init__(self, why: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(f"{why}; try again in {retry_after:.1f} s")


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A definition as TOML: what messages call its file, and the directory, absolute, at which its paths start."""

    text: str
    file: str
    directory: str


class StartRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start `count` guests of each definition, all of them or none; with `dry_run` only say what would come of it."""

    definitions: tuple[Definition, ...]
    count: int = 1
    dry_run: bool = False


class MoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Have an exclusive guest on these cores; on better ones, if there are such, where none is named."""

    cores: tuple[int, ...] = ()


class ResizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Have so many vCPUs in an exclusive guest."""

    vcpus: int


class NameRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which name a state is kept; without one, under what is usual."""

    name: str | None = None


class CloneRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start `count` clones, or one for each name; those that are `staged` stand still until they are resumed."""

    count: int = 1
    names: tuple[str, ...] = ()
    staged: bool = False


class Kept(msgspec.Struct, frozen=True):
    """A guest, and the name under which a state of it is kept."""

    guest: str
    name: str


class Clones(msgspec.Struct, frozen=True):
    """Clones of a template, by name, and what their owner has to know of them."""

    template: str
    guests: tuple[str, ...]
    notes: tuple[str, ...]


class StateView(msgspec.Struct, frozen=True):
    """A state that is kept; `misfits` are the reasons for which it cannot be loaded here, `bytes` those on the disk."""

    name: str
    guest: str
    owner: str
    architecture: str
    machine: str
    qemu: str
    taken_at: str
    bytes: int
    misfits: tuple[str, ...]


class States(msgspec.Struct, frozen=True):
    """States that are kept."""

    states: tuple[StateView, ...]


class Removed(msgspec.Struct, frozen=True):
    """What has been removed."""

    removed: tuple[str, ...]


class DesiredGuests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many guests of a definition that are to run for their owner."""

    definition: Definition
    owner: str
    count: int = 1


class PolicyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Put a policy in force, given as its tables, and keep these guests running and none else that a policy run began.

    `file` is what messages call it. With `dry_run` only say what would change.
    """

    file: str
    policy: dict[str, Any]
    guests: tuple[DesiredGuests, ...] = ()
    dry_run: bool = False


class Done(msgspec.Struct, frozen=True):
    """What was asked of the guest of this name has been done."""

    name: str


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels: its family's name, what to tell the user line by line, and the exit code.

    `retry_after` is in how many seconds it makes sense to try again, where that is known.
    """

    error: str
    lines: tuple[str, ...]
    exit_code: int
    retry_after: float | None = None


class _ToldError(UsageError):
    """A usage error of which the daemon told several lines."""

    def __init__(self, told: Sequence[str]) -> None:
        self._told = tuple(told)
        super().__init__("; ".join(told))

    def lines(self) -> Sequence[str]:
        return self._told


_FAMILIES: tuple[tuple[type[OrchestratorError], str, int], ...] = (
    (NoSuchGuestError, "no such guest", 404),
    (UsageError, "usage", 400),
    (BannedError, "banned", 403),
    (TooManyError, "too many", 429),
    (ForbiddenError, "forbidden", 403),
    (RefusedError, "refused", 409),
    (HostError, "host", 503),
    (FailedError, "failed", 502),
    (OutcomeUnknownError, "outcome unknown", 504),
    (OrchestratorError, "error", 500),
)
"""Each family, the word for it, and its HTTP status; the first that fits counts."""

STATUSES: dict[int, str] = {}
"""The HTTP statuses of errors, and in words what they are."""
for _, _word, _status in _FAMILIES:
    STATUSES[_status] = f"{STATUSES[_status]}, or {_word}" if _status in STATUSES else _word

DEFECT = "defect"
"""The word for an error that is nobody's but the daemon's."""


def encode_error(error: OrchestratorError) -> tuple[int, ErrorBody]:
    """Return the HTTP status and the body that tell of an error."""
    word, status = next((word, status) for family, word, status in _FAMILIES if isinstance(error, family))
    retry_after = error.retry_after if isinstance(error, TooManyError) else None
    return status, ErrorBody(word, tuple(error.lines()), error.exit_code, retry_after)


def decode_error(body: ErrorBody) -> OrchestratorError:
    """Return an error of the family that was told, with the same lines and exit code."""
    if body.error == "usage" and len(body.lines) != 1:
        return _ToldError(body.lines)
    if body.error == "too many":
        error = TooManyError("", body.retry_after or 0.0)
        error.args = ("; ".join(body.lines),)
        return error
    families = {word: family for family, word, _ in _FAMILIES}
    return families.get(body.error, OrchestratorError)("; ".join(body.lines))

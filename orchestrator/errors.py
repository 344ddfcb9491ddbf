"""The error tree, split by whose fault it is. Nothing here prints, exits or logs.

::

    OrchestratorError            exit code
    ├── UsageError               2   the user's flags or files are wrong
    │   ├── InvalidFileError     2   one file, with every fault found in it
    │   └── InvalidFilesError    2   several files, likewise
    ├── RefusedError             3   a rule of this host says no
    │   └── ReservedCoreError    3   a guest was to have a core that is not the pool's
    ├── HostError                4   this machine cannot do it
    ├── FailedError              1   it was tried, and definitely did not work
    │   └── PinMismatchError     1   a live thread may run where its placement does not allow it
    └── OutcomeUnknownError      5   nobody can say yet whether it happened

    ImpossibleTransitionError    a defect of this program, not of anybody's file or machine: caught by nobody

The message of each is one clear line: what, where, why, and what would work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class OrchestratorError(Exception):
    """The root of all errors that a user may see; `exit_code` follows the family."""

    exit_code = 1

    def lines(self) -> Sequence[str]:
        """Return what to tell the user, one fault a line."""
        return (str(self),)


class UsageError(OrchestratorError):
    """The user asked for something that makes no sense; nothing was done."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file: where (`line` counts from 1, `key` is dotted), what, and what would work."""

    message: str
    key: str = ""
    line: int | None = None

    def describe(self, file: str) -> str:
        """Return ``file:line: key: message``, without the parts that are not known."""
        where = file if self.line is None else f"{file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.message) if part)


class InvalidFileError(UsageError):
    """A file is not valid; `faults` holds everything that was found wrong in it."""

    def __init__(self, file: str, faults: Iterable[Fault]) -> None:
        self.file = file
        self.faults = tuple(faults)
        super().__init__("; ".join(self.lines()))

    def lines(self) -> Sequence[str]:
        """Return a line for each fault."""
        return tuple(fault.describe(self.file) for fault in self.faults)


class InvalidFilesError(UsageError):
    """Several files are not valid; `errors` has one for each of them."""

    def __init__(self, errors: Iterable[InvalidFileError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(self.lines()))

    def lines(self) -> Sequence[str]:
        """Return a line for each fault of each file."""
        return tuple(line for error in self.errors for line in error.lines())


class RefusedError(OrchestratorError):
    """A rule of this host forbids it; nothing was done."""

    exit_code = 3


class ReservedCoreError(RefusedError):
    """A guest was to be placed on a core outside the pool; `cores` are the offending ones."""

    def __init__(self, message: str, cores: Iterable[int]) -> None:
        self.cores = tuple(sorted(cores))
        super().__init__(message)


class HostError(OrchestratorError):
    """This machine lacks what it takes: cores, a program, a kernel feature."""

    exit_code = 4


class FailedError(OrchestratorError):
    """It was tried and definitely failed; whatever had been started was undone."""


class PinMismatchError(FailedError):
    """A live thread of a guest may run on a core that its placement does not give it."""


class OutcomeUnknownError(OrchestratorError):
    """The act may or may not have happened; look again before acting on it."""

    exit_code = 5


class ImpossibleTransitionError(Exception):
    """A guest in this state cannot have come to this event: whoever says so keeps wrong books."""

    def __init__(self, state: str, event: str) -> None:
        self.state = state
        self.event = event
        super().__init__(f"a guest that is {state} cannot come to '{event}': what was kept of its life is wrong")

"""Policy files, checked with all definitions that they and their windows name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Fault, InvalidFileError, InvalidFilesError, UsageError
from orchestrator.wiring.definitions import parse_guests
from orchestrator.wiring.site import load_sources, read_file

if TYPE_CHECKING:
    from orchestrator.config import ParsedGuest
    from orchestrator.core.agenda import DesiredGuest
    from orchestrator.core.policy import Policy
    from orchestrator.policy_file import SourcedPolicy


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy file without faults, and each definition that it or one of its windows names, by path."""

    file: Path
    policy: Policy
    definitions: Mapping[str, ParsedGuest]

    @property
    def guests(self) -> int:
        """How many guests it wants outside its windows."""
        return sum(each.count for each in self.policy.guest)


def check(file: Path) -> Checked:
    """Read a policy file and all definitions that it names; raises UsageError with every fault of all of them."""
    sourced = load_sources(file)
    lists = _lists(sourced.policy)
    listed = [each for one in lists for each in one]
    parsed: dict[str, ParsedGuest] = {}
    invalid: list[InvalidFileError] = []
    unreadable: list[tuple[str, str]] = []
    for key, each in listed:
        if each.definition in parsed:
            continue
        path = Path(each.definition)
        try:
            source = (read_file(path), each.definition, str(path.parent))
            (parsed[each.definition],) = parse_guests([source], defaults=sourced.policy.defaults)
        except InvalidFilesError as error:
            invalid += [found for found in error.errors if str(found) not in map(str, invalid)]
        except UsageError as error:
            unreadable.append((f"{key}.definition", str(error)))
    twice = [each for one in lists[1:] or [[]] for each in _twice([*lists[0], *one], parsed)]
    invalid = [*_at_their_lines(sourced, [*unreadable, *dict.fromkeys(twice)]), *invalid]
    if invalid:
        raise invalid[0] if len(invalid) == 1 else InvalidFilesError(invalid)
    return Checked(file.absolute(), sourced.policy, parsed)


def _lists(policy: Policy) -> list[list[tuple[str, DesiredGuest]]]:
    """Return the desired guests of a policy, each with its key: first those outside windows, then each window's."""
    lists = [[(f"guest[{number}]", each) for number, each in enumerate(policy.guest)]]
    for index, window in enumerate(policy.window):
        found = (value for path, value in window.set if path == ("guest",) and isinstance(value, tuple))
        lists += [[(f"window[{index}].set.guest[{n}]", each) for n, each in enumerate(value)] for value in found]
    return lists


def _twice(listed: Sequence[tuple[str, DesiredGuest]], parsed: Mapping[str, ParsedGuest]) -> Iterator[tuple[str, str]]:
    """Yield the key of each desired guest whose name is that of one before it, and why that is wrong."""
    first: dict[str, str] = {}
    for key, each in listed:
        guest = parsed.get(each.definition)
        for name in () if guest is None else names(guest.spec.name, each.count):
            if first.setdefault(name, key) != key:
                there = f"a guest called {name} is listed by {first[name]} already; a name is for one"
                yield f"{key}.definition", there
                break


def names(name: str, count: int) -> list[str]:
    """Return what so many guests of a definition are called."""
    return [f"{name}-{number + 1}" for number in range(count)] if count > 1 else [name]


def _at_their_lines(sourced: SourcedPolicy, faults: Sequence[tuple[str, str]]) -> list[InvalidFileError]:
    by_file: dict[str, list[Fault]] = {}
    for key, message in faults:
        origin = sourced.origins.get(key)
        file = origin.file if origin else sourced.files[-1]
        by_file.setdefault(file, []).append(Fault(message, key, origin.line if origin else None))
    return [InvalidFileError(file, found) for file, found in by_file.items()]


def faults(error: UsageError) -> list[dict[str, object]]:
    """Return what is wrong in the files, in JSON's types."""
    match error:
        case InvalidFilesError():
            return [fault for each in error.errors for fault in faults(each)]
        case InvalidFileError():
            return [
                {"file": error.file, "line": each.line, "key": each.key, "message": each.message}
                for each in error.faults
            ]
    return [{"file": "", "line": None, "key": "", "message": line} for line in error.lines()]

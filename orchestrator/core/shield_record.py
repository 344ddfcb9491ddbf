"""What is written down of a shield, so that any later process can undo it: its text, and what must be in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from orchestrator.core.cpulist import format_cpulist, parse_cpulist
from orchestrator.core.shield import Change, Division, Kind, merge
from orchestrator.errors import UsageError

_VERSION = 1


class Phase(StrEnum):
    """How far it is. In the first and the last, changes may be made or not: either command, run again, sees to them."""

    SHIELDING = "shielding"
    SHIELDED = "shielded"
    UNSHIELDING = "unshielding"


@dataclass(frozen=True, slots=True)
class ShieldRecord:
    """All that has been or is about to be changed, on which boot of the host (`boot`), for which division of cores.

    `refused` maps the targets that the kernel would not change to its reasons.
    """

    boot: str
    phase: Phase
    division: Division
    changes: tuple[Change, ...]
    refused: Mapping[str, str]

    def intending(self, wanted: Iterable[Change]) -> ShieldRecord:
        """Return the record as it must be kept before these changes are made."""
        return replace(self, phase=Phase.SHIELDING, changes=merge(self.changes, wanted))


def encode(record: ShieldRecord) -> str:
    """Return the record's text: a JSON object with a change a line, so that people can read it, too."""
    head = {
        "version": _VERSION,
        "boot": record.boot,
        "phase": record.phase,
        "inside": format_cpulist(record.division.inside),
        "rest": format_cpulist(record.division.rest),
        "refused": dict(record.refused),
    }
    changes = ",\n".join(json.dumps([each.kind, each.target, each.before, each.after]) for each in record.changes)
    return f'{json.dumps(head)[:-1]}, "changes": [\n{changes}\n]}}\n'


def decode(text: str) -> ShieldRecord:
    """Return the record of this text; UsageError if it is none."""
    try:
        found: dict[str, Any] = json.loads(text)
        if found["version"] != _VERSION:
            raise UsageError(f"it is of version {found['version']}, not {_VERSION}")
        return ShieldRecord(
            boot=str(found["boot"]),
            phase=Phase(found["phase"]),
            division=Division(parse_cpulist(found["inside"]), parse_cpulist(found["rest"])),
            changes=tuple(
                Change(Kind(kind), str(target), str(before), str(after))
                for kind, target, before, after in found["changes"]
            ),
            refused={str(target): str(why) for target, why in found["refused"].items()},
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(f"it is no record of a shield ({type(error).__name__}: {error})") from None

"""Keeps the shield's own cpusets as they were made, while a scheduler runs: an outsider's write to one is taken back.

Nobody raises a shield or takes it down meanwhile, so what was recorded holds until the scheduler ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.shield import Change, fallen
from orchestrator.core.shield_record import ShieldRecord
from orchestrator.errors import FailedError
from orchestrator.shield_ports import Kernel


class ShieldKeeper:
    """Looks when told. `tell` is given what was found and what became of it: a line for people, and its parts."""

    def __init__(self, kernel: Kernel, record: ShieldRecord, tell: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._kernel = kernel
        self._record = record
        self._tell = tell
        self._stuck: tuple[Change, ...] = ()

    def look(self) -> bool:
        """Put right what somebody else has changed; return whether anything was. Reads a handful of small files.

        Threads inside may run on any core of it then, this process's own too: pin them anew.
        """
        settings = self._kernel.settings()
        found = fallen(self._record.changes, settings)
        if not found or found == self._stuck:
            return False
        failures = []
        for change in found:
            try:
                self._kernel.make(change)
            except FailedError as error:
                failures.append(str(error))
        self._stuck = found if failures else ()
        was = [{"target": each.target, "is": settings.get(each.target), "wanted": each.after} for each in found]
        said = ", ".join(f"{each['target']} was {each['is'] or 'not there'!r}, not {each['wanted']!r}" for each in was)
        outcome = f"it cannot be put back: {failures[0]}" if failures else "put back"
        self._tell(f"the shield: {said}; {outcome}", {"found": was, "put_back": not failures})
        return not failures

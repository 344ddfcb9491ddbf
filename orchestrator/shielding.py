"""Raises the shield and takes it down: what is to change is recorded first, whatever is recorded can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.shield import Change, Division, decide, ordered
from orchestrator.core.shield_record import Phase, ShieldRecord
from orchestrator.errors import FailedError
from orchestrator.shield_ports import Kernel, ShieldBook

MOST_ROUNDS = 8
"""How often what has appeared meanwhile is seen to: programs start while others are moved."""


def shield(kernel: Kernel, book: ShieldBook, division: Division, *, isolated: bool) -> ShieldRecord:
    """Have everything but guests and the scheduler leave the cores inside; return what was recorded of it.

    What an earlier process began is completed; what was there before the first change remains known. If the kernel
    refuses something without which there is no shield, all is undone, and FailedError says what.
    """
    record = recorded(kernel, book) or ShieldRecord(kernel.boot, Phase.SHIELDING, division, (), {})
    record = replace(record, division=division)
    refused: dict[str, str] = {}
    for _ in range(MOST_ROUNDS):
        wanted = [each for each in decide(kernel.see(), division, isolated=isolated) if each.target not in refused]
        if not wanted:
            break
        record = record.intending(wanted)
        book.save(record)
        for change in wanted:
            try:
                kernel.make(change)
            except FailedError as error:
                if change.vital:
                    unshield(kernel, book)
                    raise FailedError(f"the host is not shielded, all is as before: {error}") from None
                refused[change.target] = str(error)
    record = replace(record, phase=Phase.SHIELDED, refused=refused)
    book.save(record)
    return record


def unshield(kernel: Kernel, book: ShieldBook) -> ShieldRecord | None:
    """Undo all that is recorded, then forget it; return what was recorded, None if there was nothing to undo.

    FailedError names what could not be brought back; the record stays then, and the next try goes on with it.
    """
    record = recorded(kernel, book)
    if record is None:
        book.drop()
        return None
    book.save(replace(record, phase=Phase.UNSHIELDING))
    failures = []
    for change in reversed(ordered(record.changes)):
        try:
            kernel.undo(change)
        except FailedError as error:
            if change.vital or change.target not in record.refused:
                failures.append(str(error))
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise FailedError(f"not all is as before: {failures[0]}{more}; mend that and run it again")
    book.drop()
    return record


def missing(kernel: Kernel, record: ShieldRecord, *, isolated: bool) -> Sequence[Change]:
    """Return what of the shield does not hold any more, or has come since; what was refused is left out."""
    wanted = decide(kernel.see(), record.division, isolated=isolated)
    return [change for change in wanted if change.target not in record.refused]


def recorded(kernel: Kernel, book: ShieldBook) -> ShieldRecord | None:
    """Return the record, if it is of this boot: nothing of what the kernel was told outlives it."""
    record = book.load()
    return record if record is not None and record.boot == kernel.boot else None

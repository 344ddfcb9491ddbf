"""Ways to shield a host that are wrong in one thing each: what holds of the right one must find them out."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from orchestrator.core.shield import Kind, decide, ordered
from orchestrator.core.shield_record import Phase, ShieldRecord
from orchestrator.errors import FailedError
from orchestrator.shield_ports import Kernel, ShieldBook
from orchestrator.shielding import recorded, shield, unshield
from tests.unit.shield_world import CORES


def acts_before_it_records(kernel: Kernel, book: ShieldBook) -> ShieldRecord:
    wanted = decide(kernel.see(), CORES, isolated=False)
    for change in wanted:
        kernel.make(change)
    known = recorded(kernel, book) or ShieldRecord(kernel.boot, Phase.SHIELDED, CORES, (), {})
    book.save(known.intending(wanted))
    return shield(kernel, book, CORES, isolated=False)


def forgets_what_was_first(kernel: Kernel, book: ShieldBook) -> ShieldRecord:
    book.drop()
    return shield(kernel, book, CORES, isolated=False)


def forgets_before_it_is_undone(kernel: Kernel, book: ShieldBook) -> ShieldRecord | None:
    record = recorded(kernel, book)
    book.drop()
    for change in reversed(ordered(record.changes if record else ())):
        kernel.undo(change)
    return record


def frees_threads_before_the_partition_goes(kernel: Kernel, book: ShieldBook) -> ShieldRecord | None:
    record = recorded(kernel, book)
    for change in ordered(record.changes if record else ()):
        with contextlib.suppress(FailedError):
            kernel.undo(change)
    book.drop()
    return record


def leaves_masks_alone(kernel: Kernel, book: ShieldBook) -> ShieldRecord | None:
    record = recorded(kernel, book)
    if record is not None:
        book.save(replace(record, changes=tuple(each for each in record.changes if each.kind is not Kind.MASK)))
    return unshield(kernel, book)

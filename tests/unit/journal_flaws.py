"""Ways to verify a journal with one flaw each, which some damage must get past."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from orchestrator.core.journal import NOTHING_BEFORE, START, Damage, Head, Record, Verdict, decode, verify
from orchestrator.errors import UsageError


def _read(lines: Iterable[bytes]) -> list[Record] | Verdict:
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(decode(line))
        except UsageError as error:
            return Verdict(START, number, number, Damage.CHANGED, str(error))
    return records


def looks_at_each_alone(lines: Iterable[bytes], head: Head | None = None) -> Verdict:
    """Sees neither numbers nor which record follows which."""
    records = _read(lines)
    if isinstance(records, Verdict):
        return records
    whole = records[-1].head if records else START
    return Verdict(whole if head is None else head)


def believes_hashes(lines: Iterable[bytes], head: Head | None = None) -> Verdict:
    """Follows the chain from hash to hash, and never computes one."""
    previous, seen = NOTHING_BEFORE, 0
    for line, number in zip(lines, count(1), strict=False):
        if f'"previous":"{previous}","seq":{number}}}\n'.encode() not in line:
            return Verdict(START, number, number, Damage.CHANGED, "the chain is broken")
        previous, seen = line.partition(b'"hash":"')[2][:64].decode(), number
    if head is not None and head.seq > seen:
        return Verdict(Head(seen, previous), seen + 1, seen + 1, Damage.CUT_OFF)
    return Verdict(Head(seen, previous))


def follows_numbers_only(lines: Iterable[bytes], head: Head | None = None) -> Verdict:
    """Computes each hash, but never asks whether the next record was made after this one."""
    records = _read(lines)
    if isinstance(records, Verdict):
        return records
    for number, record in enumerate(records, 1):
        if record.seq != number:
            return Verdict(START, number, number, Damage.MISSING)
    if head is not None and len(records) < head.seq:
        return Verdict(START, len(records) + 1, 0, Damage.CUT_OFF)
    return Verdict(records[-1].head if records else START)


def forgets_the_head(lines: Iterable[bytes], head: Head | None = None) -> Verdict:  # noqa: ARG001
    """Believes that the journal ends where it ends."""
    return verify(lines)


def mends_the_last_line(lines: Iterable[bytes], head: Head | None = None) -> Verdict:
    """Leaves a line out that has no end."""
    return verify((line for line in lines if line.endswith(b"\n")), head and None)


def never_looks_on(lines: Iterable[bytes], head: Head | None = None) -> Verdict:
    """Stops at the first wrong number, so that whatever is out of order is missing."""

    def until_wrong() -> Iterable[bytes]:
        for number, line in enumerate(lines, 1):
            yield line
            if f'"seq":{number}}}\n'.encode() not in line:
                return

    return verify(until_wrong(), head)

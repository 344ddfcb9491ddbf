"""The journal: an append-only log in which each record holds the hash of the one before.

A record is one line of canonical JSON: keys sorted by code point, no blanks, UTF-8, no floating-point numbers, whose
texts are many. Its hash is SHA-256 (FIPS 180-4) over the canonical JSON of all its other fields, the previous record's
hash among them. So whoever changes one record must change all that come after, and then the head, the last record's
number and hash, is not the one that is kept elsewhere. The idea is Haber and Stornetta's ("How to Time-Stamp a
Digital Document", 1991). No clock and no file lives here: who appends brings the time, who verifies brings the lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from orchestrator.errors import UsageError

MOST_BYTES = 1 << 20
"""The longest line there may be, its end included; so a reader knows how far back a record can begin."""

NOTHING_BEFORE = "0" * 64
"""Stands for the hash of the record before the first."""

_FIELDS = {"at": int, "body": dict, "hash": str, "kind": str, "previous": str, "seq": int}


class Head(NamedTuple):
    """How far a journal goes: the number of its last record, and that record's hash in hexadecimal."""

    seq: int
    hash: str


START = Head(0, NOTHING_BEFORE)
"""The head of a journal without records."""


@dataclass(frozen=True, slots=True)
class Record:
    """What happened: `seq` counts from 1, `at` is wall-clock time in nanoseconds since 1970, `body` a JSON object.

    `previous` is the hash of the record before (`NOTHING_BEFORE` for the first), `hash` that over all other fields.
    """

    seq: int
    at: int
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        """The journal's head once this is its last record."""
        return Head(self.seq, self.hash)


class Damage(StrEnum):
    """What can be wrong with a record."""

    CHANGED = "changed"
    CUT_OFF = "cut off"
    MISSING = "missing"
    REORDERED = "reordered"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification found: how far the journal is whole, and what is wrong with record `seq`, if anything is.

    `line` is where that shows, from 1. `seq` is 0 and `damage` None in a journal that is whole.
    """

    whole: Head
    seq: int = 0
    line: int = 0
    damage: Damage | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.damage is None:
            return f"whole: {self.whole.seq} records, the last one's hash is {self.whole.hash}"
        return f"record {self.seq} is {self.damage}: {self.why} (line {self.line})"


def follow(head: Head, at: int, kind: str, body: Mapping[str, Any]) -> Record:
    """Return the record that comes after `head`, with a copy of `body`.

    Growth: linear in the body's text. Raises UsageError if the body is not JSON, has a floating-point number in it, or
    makes a line longer than `MOST_BYTES`.
    """
    if not isinstance(body, Mapping):
        raise UsageError(f"journal: the body of {kind!r} is not a JSON object; records hold named values")
    try:
        copy = _read(_canonical(dict(body)))
        record = _hashed(head.seq + 1, at, kind, copy, head.hash)
        length = len(encode(record))
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"journal: {kind!r} cannot be recorded: {_short(error)}; use JSON without floats") from None
    if length > MOST_BYTES:
        raise UsageError(f"journal: {kind!r} cannot be recorded: {length} bytes, at most {MOST_BYTES} are possible")
    return record


def encode(record: Record) -> bytes:
    """Return a record's line, with its end. Growth: linear in it."""
    return _canonical({field: getattr(record, field) for field in _FIELDS}) + b"\n"


def decode(line: bytes) -> Record:
    r"""Return the record on a line, with or without its ``\n``; its hash is right, its predecessor is not looked at.

    Growth: linear in the line. Raises UsageError if it is not exactly what `encode` gives.
    """
    text = line.removesuffix(b"\n")
    if len(text) >= MOST_BYTES:
        raise UsageError(f"it is longer than {MOST_BYTES} bytes")
    try:
        fields = _read(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is not JSON: {_short(error)}") from None
    if not isinstance(fields, dict) or {name: type(value) for name, value in fields.items()} != _FIELDS:
        raise UsageError(f"it is not an object with the fields {', '.join(_FIELDS)}")
    record = Record(**fields)
    if record.seq < 1:
        raise UsageError(f"its number is {record.seq}; they count from 1")
    try:
        written = encode(record)
        right = _hashed(record.seq, record.at, record.kind, record.body, record.previous).hash
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is not canonical: {_short(error)}") from None
    if right != record.hash:
        raise UsageError("its hash is not that of what it says")
    if written != text + b"\n":
        raise UsageError("it is not canonical: keys in order, no blanks, each value written in the one way there is")
    return record


def verify(
    lines: Iterable[bytes], head: Head | None = None, *, heads: Iterable[Head] = (), anywhere: str = ""
) -> Verdict:
    """Look at a journal from its start, and name the first record that is not as it was written.

    `lines` are those of the file, each with its end, as iterating over a file opened in binary mode gives them; those
    of a journal in several files follow one another. `head` and `heads` were kept elsewhere; without any, a cut at the
    end and a journal written anew from some record on cannot be seen. `anywhere` is the hash of such a head whose
    number is not known. Records after the heads are fine: the journal has grown. Any bytes may be given; nothing is
    raised for them. Growth: linear in the bytes, in the memory of one line and of the heads.
    """
    kept = _by_number([*heads, *(() if head is None else (head,))])
    newest = max(kept, default=0)
    before = whole = START
    number, met = 0, not anywhere
    rest = iter(lines)
    for number, line in enumerate(rest, 1):
        found = _judge(line, number, (before, whole, newest), rest)
        if isinstance(found, Verdict):
            return found
        before, whole = whole, found.head
        met = met or whole.hash == anywhere
        for hashed in kept.get(whole.seq, {whole.hash}) - {whole.hash}:
            return _not_kept(before, whole.seq, number, hashed, rest)
    if whole.seq < newest:
        why = f"the journal ends before it, but went on to record {newest}"
        return Verdict(whole, whole.seq + 1, number + 1, Damage.CUT_OFF, why)
    if not met:
        why = f"no record has the hash that was kept, {anywhere}; it ends too early, or was written anew"
        return Verdict(whole, whole.seq + 1, number + 1, Damage.CUT_OFF, why)
    return Verdict(whole)


def _by_number(heads: Iterable[Head]) -> dict[int, set[str]]:
    kept: dict[int, set[str]] = {}
    for seq, hashed in heads:
        if seq > 0:
            kept.setdefault(seq, set()).add(hashed)
    return kept


def _judge(line: bytes, number: int, so_far: tuple[Head, Head, int], rest: Iterator[bytes]) -> Record | Verdict:
    """Return the record that a line has next, else what is wrong.

    `so_far` are the heads before the last record and after it, and the number of the newest one that was kept; `rest`
    are the lines after this one, which are looked at only if something is wrong.
    """
    before, whole, newest = so_far
    expected = whole.seq + 1
    if not line.endswith(b"\n"):
        return Verdict(whole, expected, number, Damage.CUT_OFF, "its line has no end")
    try:
        record = decode(line)
    except UsageError as error:
        added = _follows(whole, rest)
        damage, where = (Damage.ADDED, "a line before it is no record: ") if added else (Damage.CHANGED, "")
        return Verdict(whole, expected, number, damage, f"{where}{error}")
    if record.seq > expected:
        return _out_of_order(record, number, whole, newest, rest)
    if record.seq < expected:
        why = f"one of its number comes a second time, where record {expected} should stand"
        return Verdict(whole, record.seq, number, Damage.ADDED, why)
    if record.previous == whole.hash:
        return record
    return _unchained((before, whole, newest), number, rest)


def _out_of_order(record: Record, number: int, whole: Head, newest: int, rest: Iterable[bytes]) -> Verdict:
    """Say what is wrong when a later record stands where another should: it is too many, too early, or others are gone.

    It is too many if what follows goes on as if it were not there, to the end that the journal is known to have had.
    """
    expected = whole.seq + 1
    last, straight, comes = whole.seq, True, False
    for line in rest:
        seq = _number(line)
        straight = straight and seq == last + 1
        comes = comes or seq == expected
        last = seq
    if straight and last >= min(record.seq, newest or record.seq):
        why = f"it stands before record {expected} too"
        return Verdict(whole, record.seq, number, Damage.ADDED, why)
    damage = Damage.REORDERED if comes else Damage.MISSING
    return Verdict(whole, expected, number, damage, f"record {record.seq} stands where it should")


def _unchained(so_far: tuple[Head, Head, int], number: int, rest: Iterator[bytes]) -> Verdict:
    """Say what is wrong when two records are right by themselves, but the later one, on this line, names another hash.

    The earlier one is blamed: who changes a record and hashes it anew leaves exactly this behind. Unless the one that
    does follow comes next: then the later one is too many; or the earlier one is the newest whose hash was kept.
    """
    before, whole, newest = so_far
    later = whole.seq + 1
    if _follows(whole, rest):
        why = "one of its number that does not follow from the record before stands in front of it"
        return Verdict(whole, later, number, Damage.ADDED, why)
    if whole.seq in (0, newest):
        why = (
            "it does not follow from the record before"
            if newest
            else "it is the first, but names the hash of one before it"
        )
        return Verdict(whole, later, number, Damage.CHANGED, why)
    return Verdict(
        before, whole.seq, number, Damage.CHANGED, f"record {later} was made after another one of this number"
    )


def _not_kept(before: Head, seq: int, number: int, hashed: str, rest: Iterator[bytes]) -> Verdict:
    """Say what is wrong with record `seq`, which follows from the one before, but has not the hash that was kept."""
    if _follows(before, rest):
        why = f"one of its number stands in front of it, and has not the hash that was kept, {hashed}"
        return Verdict(before, seq, number, Damage.ADDED, why)
    why = f"it, or one before it, is not the one whose hash was kept, {hashed}"
    return Verdict(before, seq, number, Damage.CHANGED, why)


def _follows(whole: Head, rest: Iterator[bytes]) -> bool:
    """Tell whether the next line has the record that comes after `whole`."""
    try:
        record = decode(next(rest, b""))
    except UsageError:
        return False
    return (record.seq, record.previous) == (whole.seq + 1, whole.hash)


def _number(line: bytes) -> int:
    """Return the number of the record on a line, 0 if there is none."""
    try:
        return decode(line).seq
    except UsageError:
        return 0


def _hashed(seq: int, at: int, kind: str, body: Mapping[str, Any], previous: str) -> Record:
    fields = {"seq": seq, "at": at, "kind": kind, "body": body, "previous": previous}
    return Record(seq, at, kind, body, previous, sha256(_canonical(fields)).hexdigest())


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _read(text: bytes) -> Any:
    return json.loads(text.decode(), parse_float=_no_float, parse_constant=_no_float)


def _no_float(text: str) -> object:
    raise ValueError(f"{text} is a floating-point number")


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeError):
        return "a text in it is not Unicode"
    return str(error)[:200]

"""What may be done to a journal at random, and which record must be named for it, as counted without `verify`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.core.journal import START, Damage, Head, encode, follow

LINE = b"\n"


@dataclass(frozen=True)
class Mutation:
    """A journal after something was done to it; `record` is the first that is wrong, and each of `damages` says it."""

    what: str
    data: bytes
    record: int
    damages: frozenset[Damage]


def journal(chance: random.Random) -> tuple[list[bytes], list[Head]]:
    """Return the lines of a journal of 2 to 12 records, and the head after each."""
    lines, heads = [], [START]
    for number in range(chance.randint(2, 12)):
        body = {
            "guest": f"g{chance.randrange(3)}",
            "cores": [chance.randrange(2, 9)],
            "n": chance.choice(["", "ü", "x"]),
        }
        record = follow(heads[-1], 1_700_000_000 + number, chance.choice(["start", "end", "kill"]), body)
        lines.append(encode(record))
        heads.append(record.head)
    return lines, heads


def _first_other(lines: Sequence[bytes], data: bytes) -> int:
    """Return the number of the first line that is not as it was."""
    now = data.splitlines(keepends=True)
    for index, line in enumerate(lines):
        if index >= len(now) or now[index] != line:
            return index + 1
    return len(lines) + 1


def flip(chance: random.Random, lines: list[bytes], _heads: list[Head]) -> Mutation:
    data = bytearray(b"".join(lines))
    where = chance.randrange(len(data))
    data[where] ^= chance.randrange(1, 256)
    record = next(number for number, end in enumerate(accumulate(map(len, lines)), 1) if where < end)
    damage = Damage.CUT_OFF if where == len(data) - 1 else Damage.CHANGED
    return Mutation("flip", bytes(data), record, frozenset({damage}))


def cut(chance: random.Random, lines: list[bytes], _heads: list[Head]) -> Mutation:
    data = b"".join(lines)
    start = chance.randrange(len(data))
    end = chance.randrange(start + 1, len(data) + 1)
    if chance.random() < 0.3:  # whole lines
        first = chance.randrange(len(lines))
        last = chance.randrange(first + 1, len(lines) + 1)
        start, end = sum(map(len, lines[:first])), sum(map(len, lines[:last]))
    data = data[:start] + data[end:]
    damages = {Damage.CHANGED, Damage.MISSING, Damage.CUT_OFF}
    return Mutation("cut", data, _first_other(lines, data), frozenset(damages))


def swap(chance: random.Random, lines: list[bytes], _heads: list[Head]) -> Mutation:
    low, high = sorted(chance.sample(range(len(lines)), 2))
    changed = [*lines[:low], lines[high], *lines[low + 1 : high], lines[low], *lines[high + 1 :]]
    return Mutation("swap", b"".join(changed), low + 1, frozenset({Damage.REORDERED}))


def insert(chance: random.Random, lines: list[bytes], heads: list[Head]) -> Mutation:
    where = chance.randrange(len(lines) + 1)
    damages, record = {Damage.ADDED}, where + 1
    match chance.randrange(4):
        case 0:  # a copy of one that is there
            record = chance.randrange(len(lines)) + 1
            added = lines[record - 1]
            where = where if where < len(lines) or record < len(lines) else record
        case 1:  # one that follows, so that there are two of its number; after the last it would be a record like any
            where = chance.randrange(len(lines))
            added, record = encode(follow(heads[where], 0, "kill", {"guest": "web"})), where + 1
        case 2:  # one of the right number that follows from nothing
            added = encode(follow(Head(where, "f" * 64), 0, "kill", {}))
            damages |= {Damage.CHANGED} if where == len(lines) else set()
        case _:
            added = chance.randbytes(chance.randrange(1, 30)).replace(LINE, b"") + LINE
            damages |= {Damage.CHANGED} if where == len(lines) else set()
    return Mutation("insert", b"".join([*lines[:where], added, *lines[where:]]), record, frozenset(damages))


def truncate(chance: random.Random, lines: list[bytes], _heads: list[Head]) -> Mutation:
    data = b"".join(lines)
    data = data[: chance.randrange(len(data))]
    return Mutation("truncate", data, data.count(LINE) + 1, frozenset({Damage.CUT_OFF}))


def roll_back(chance: random.Random, lines: list[bytes], _heads: list[Head]) -> Mutation:
    kept = chance.randrange(len(lines))
    return Mutation("roll back", b"".join(lines[:kept]), kept + 1, frozenset({Damage.CUT_OFF}))


KINDS: tuple[Callable[[random.Random, list[bytes], list[Head]], Mutation], ...] = (
    flip,
    cut,
    swap,
    insert,
    truncate,
    roll_back,
)


def mutations(count: int, seed: int) -> Iterator[tuple[Mutation, Head]]:
    """Yield so many, each with the head that the journal had before; the same ones for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        lines, heads = journal(chance)
        yield KINDS[number % len(KINDS)](chance, lines, heads), heads[-1]

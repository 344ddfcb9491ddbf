"""Random mutations of a journal: each is found by the head that was kept elsewhere, and the right record is named."""

from __future__ import annotations

import io
from collections.abc import Iterable

from orchestrator.core.journal import START, Damage, Head, encode, follow, verify
from tests.unit import journal_flaws as flaws
from tests.unit.journal_mutations import KINDS, Mutation, mutations

FEW = 420
"""All 10,000 are in tests/functional/test_journal_verify.py."""


def wrongly_named(found: Iterable[tuple[Mutation, Head]]) -> list[str]:
    wrong = []
    for mutation, head in found:
        verdict = verify(io.BytesIO(mutation.data), head)
        if verdict.seq != mutation.record or verdict.damage not in mutation.damages:
            wrong.append(f"{mutation}: {verdict}")
    return wrong


def test_each_is_found_and_the_record_named_is_right() -> None:
    assert wrongly_named(mutations(FEW, seed=9)) == []


def test_all_kinds_are_among_them_and_a_flawed_way_misses_some() -> None:
    drawn = list(mutations(120, seed=9))
    assert len({mutation.what for mutation, _ in drawn}) == len(KINDS)
    for flawed in (flaws.forgets_the_head, flaws.looks_at_each_alone, flaws.follows_numbers_only):
        named = [(flawed(io.BytesIO(each.data), head).seq, each.record) for each, head in drawn]
        assert any(seq != record for seq, record in named), flawed


def chain(count: int, kind: str, head: Head = START) -> list[tuple[bytes, Head]]:
    made = []
    for number in range(count):
        record = follow(head, number, kind, {})
        head = record.head
        made.append((encode(record), head))
    return made


def test_more_heads_narrow_down_where_a_journal_was_written_anew() -> None:
    was = chain(9, "start")
    forged = [*was[:4], *chain(5, "stop", was[3][1])]
    lines = [line for line, _ in forged]
    heads = [head for _, head in was]
    assert verify(lines, heads[8]).seq == 9
    assert verify(lines, heads=[heads[8], heads[2], heads[5]]).seq == 6
    assert verify(lines, heads=heads).seq == 5
    assert verify([line for line, _ in was], heads=heads).damage is None


def test_a_head_whose_number_is_not_known_is_one_of_the_journals() -> None:
    was = chain(3, "start")
    lines = [line for line, _ in was]
    assert verify(lines, anywhere=was[1][1].hash).damage is None
    verdict = verify(lines[:2], anywhere=was[2][1].hash)
    assert (verdict.seq, verdict.damage) == (3, Damage.CUT_OFF)
    assert "or was written anew" in verdict.why


def test_heads_that_contradict_one_another_are_found() -> None:
    was = chain(2, "start")
    other = Head(2, "f" * 64)
    assert verify([line for line, _ in was], heads=[was[1][1], other]).seq == 2

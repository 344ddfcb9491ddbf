"""The journal: what a record is, and that whatever is done to a journal afterwards is found and named."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.journal import (
    MOST_BYTES,
    NOTHING_BEFORE,
    START,
    Damage,
    Head,
    Record,
    Verdict,
    decode,
    encode,
    follow,
    verify,
)
from orchestrator.errors import UsageError
from tests.unit import journal_flaws as flaws

Verifier = Callable[[Iterable[bytes], Head | None], Verdict]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


def chain(bodies: Iterable[Mapping[str, Any]], head: Head = START) -> list[Record]:
    records = []
    for body in bodies:
        records.append(follow(head, 1_700_000_000_000_000_000 + head.seq, "start", body))
        head = records[-1].head
    return records


def written(records: Iterable[Record]) -> list[bytes]:
    return [encode(record) for record in records]


# What a record is.


def test_a_line_is_canonical_json_and_its_hash_is_over_all_other_fields() -> None:
    first, second = chain([{"b": [1, None], "a": "ü"}, {}])
    other = (
        '"at":1700000000000000000,"body":{"a":"ü","b":[1,null]},%s"kind":"start","previous":"' + "0" * 64 + '","seq":1}'
    )
    digest = hashlib.sha256(("{" + other % "").encode()).hexdigest()
    assert encode(first) == ("{" + other % f'"hash":"{digest}",' + "\n").encode()
    assert (first.seq, first.previous, first.head) == (1, NOTHING_BEFORE, (1, digest))
    assert (second.seq, second.previous) == (2, digest)


@settings(max_examples=20, deadline=None)
@given(BODIES)
def test_what_is_encoded_is_decoded(body: dict[str, Any]) -> None:
    (record,) = chain([body])
    assert decode(encode(record)) == decode(encode(record)[:-1]) == record
    assert record.body == body
    assert json.loads(encode(record))["body"] == body


def test_a_record_keeps_a_copy_of_its_body() -> None:
    body = {"cores": [2]}
    record = follow(START, 0, "start", MappingProxyType(body))
    body["cores"].append(3)
    assert record.body == {"cores": [2]}
    assert decode(encode(record)) == record


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"": value}
    return value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"load": 0.5}, "0.5 is a floating-point number"),
        ({"load": float("nan")}, "not JSON compliant"),
        ({"load": float("inf")}, "not JSON compliant"),
        ({"name": "\ud800"}, "a text in it is not Unicode"),
        ({"name": b"bytes"}, "type bytes is not JSON serializable"),
        ({"cores": {2, 3}}, "type set is not JSON serializable"),
        ({"n": 10**5000}, "Exceeds the limit"),
        (nested(5000), "it is nested too deep"),
        ({"text": "x" * MOST_BYTES}, f"at most {MOST_BYTES} are possible"),
        (["a list"], "is not a JSON object"),
    ],
    ids=str.split("float nan inf surrogate bytes set huge deep long list"),
)
def test_what_cannot_be_recorded_is_refused_in_one_line(body: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        follow(START, 0, "start", body)
    assert str(caught.value).startswith("journal: ")
    assert len(caught.value.lines()) == 1
    assert len(str(caught.value)) < 400


def test_the_longest_line_can_be_read_back() -> None:
    room = MOST_BYTES - len(encode(follow(START, 0, "start", {"text": ""})))
    record = follow(START, 0, "start", {"text": "x" * room})
    assert len(encode(record)) == MOST_BYTES
    assert decode(encode(record)) == record
    with pytest.raises(UsageError):
        follow(START, 0, "start", {"text": "x" * (room + 1)})


# What can be done to a journal.


@dataclass(frozen=True)
class Deed:
    """Something done to a journal: which records it is done to, by draw, and with which effect."""

    do: Callable[[list[bytes], int, int], tuple[list[bytes], int]]
    damage: Damage
    missed_by: Verifier


def changes_a_byte(lines: list[bytes], k: int, where: int) -> tuple[list[bytes], int]:
    line = bytearray(lines[k])
    line[where % (len(line) - 1)] ^= 1 << where % 7
    return [*lines[:k], bytes(line), *lines[k + 1 :]], k + 1


def changes_a_body(lines: list[bytes], k: int, _: int) -> tuple[list[bytes], int]:
    return [
        *lines[:k],
        lines[k].replace(b'"body":{', b'"body":{"0":0,', 1).replace(b",}", b"}"),
        *lines[k + 1 :],
    ], k + 1


def hashes_anew(lines: list[bytes], k: int, _: int) -> tuple[list[bytes], int]:
    record = decode(lines[k])
    forged = follow(Head(k, record.previous), record.at, "stop", record.body)
    return [*lines[:k], encode(forged), *lines[k + 1 :]], k + 1


def hashes_all_anew(lines: list[bytes], k: int, _: int) -> tuple[list[bytes], int]:
    records = list(map(decode, lines))
    head = records[k - 1].head if k else START
    for index in range(k, len(records)):
        records[index] = follow(head, records[index].at, "stop", records[index].body)
        head = records[index].head
    return written(records), len(lines)


def cuts_the_end(lines: list[bytes], k: int, _: int) -> tuple[list[bytes], int]:
    return lines[:k], k + 1


def tears_the_last_line(lines: list[bytes], k: int, where: int) -> tuple[list[bytes], int]:
    return [*lines[:k], lines[k][: 1 + where % (len(lines[k]) - 1)]], k + 1


def takes_one_out(lines: list[bytes], k: int, _: int) -> tuple[list[bytes], int]:
    k %= len(lines) - 1  # without the last one it is cut
    return lines[:k] + lines[k + 1 :], k + 1


def swaps_two(lines: list[bytes], k: int, where: int) -> tuple[list[bytes], int]:
    other = (k + 1 + where % (len(lines) - 1)) % len(lines)
    low, high = sorted((k, other))
    return [*lines[:low], lines[high], *lines[low + 1 : high], lines[low], *lines[high + 1 :]], low + 1


def writes_one_twice(lines: list[bytes], k: int, where: int) -> tuple[list[bytes], int]:
    at = k + 1 + where % (len(lines) - k)
    return [*lines[:at], lines[k], *lines[at:]], k + 1


DEEDS = [
    Deed(changes_a_byte, Damage.CHANGED, flaws.believes_hashes),
    Deed(changes_a_body, Damage.CHANGED, flaws.believes_hashes),
    Deed(hashes_anew, Damage.CHANGED, flaws.follows_numbers_only),
    Deed(hashes_all_anew, Damage.CHANGED, flaws.forgets_the_head),
    Deed(cuts_the_end, Damage.CUT_OFF, flaws.forgets_the_head),
    Deed(tears_the_last_line, Damage.CUT_OFF, flaws.mends_the_last_line),
    Deed(takes_one_out, Damage.MISSING, flaws.looks_at_each_alone),
    Deed(swaps_two, Damage.REORDERED, flaws.looks_at_each_alone),
    Deed(swaps_two, Damage.REORDERED, flaws.never_looks_on),
    Deed(writes_one_twice, Damage.ADDED, flaws.looks_at_each_alone),
]
EACH_DEED = pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.do.__name__)
JOURNALS = st.lists(BODIES, min_size=2, max_size=6).map(chain)


@EACH_DEED
@settings(max_examples=10, deadline=None)
@given(records=JOURNALS, k=st.integers(0, 5), where=st.integers(0, 4000))
def test_what_was_done_to_a_journal_is_named(deed: Deed, records: list[Record], k: int, where: int) -> None:
    lines, seq = deed.do(written(records), k % len(records), where)
    verdict = verify(lines, records[-1].head)
    assert (verdict.damage, verdict.seq) == (deed.damage, seq)
    assert str(verdict).startswith(f"record {seq} is {deed.damage}: ")
    if deed.do is not hashes_all_anew:
        assert verdict.whole == [START, *(record.head for record in records)][verdict.whole.seq]
    assert verdict.whole.seq < seq or deed.damage is Damage.ADDED


@EACH_DEED
def test_the_checks_would_notice_a_flaw(deed: Deed) -> None:
    records = chain([{"guest": name} for name in "abcd"])
    lines, _ = deed.do(written(records), 1, 2)
    assert verify(lines, records[-1].head).damage is deed.damage
    assert deed.missed_by(lines, records[-1].head).damage is not deed.damage
    assert deed.missed_by(written(records), records[-1].head).damage is None


@settings(max_examples=8, deadline=None)
@given(JOURNALS)
def test_a_journal_as_it_was_written_is_whole_and_may_have_grown_since(records: list[Record]) -> None:
    for head in (None, START, records[0].head, records[-1].head):
        verdict = verify(written(records), head)
        assert verdict == Verdict(records[-1].head)
        assert str(verdict) == f"whole: {len(records)} records, the last one's hash is {records[-1].hash}"


def test_an_empty_journal_is_whole_unless_it_once_was_not_empty() -> None:
    assert verify([]) == Verdict(START)
    assert str(verify([], Head(3, "f" * 64))) == (
        "record 1 is cut off: the journal ends before it, but went on to record 3 (line 1)"
    )


def test_a_first_record_that_names_one_before_it_is_found() -> None:
    (record,) = chain([{}], Head(0, "f" * 64))
    assert (
        str(verify([encode(record)]))
        == "record 1 is changed: it is the first, but names the hash of one before it (line 1)"
    )


VALID = encode(chain([{"a": 1}])[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()), max_size=3))
def test_noise_is_changed_or_cut_off_and_never_a_traceback(noise: list[bytes]) -> None:
    for end in (b"", b"\n"):
        lines = [VALID, *(line + end for line in noise)]
        verdict = verify(lines)
        assert verdict.seq == (2 if noise else 0)
        assert (verdict.damage in (Damage.CHANGED, Damage.CUT_OFF)) is bool(noise)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (VALID.replace(b'"a":1', b'"a": 1'), "it is not canonical"),
        (VALID.replace(b'"a":1', b'"a":1,"a":1'), "it is not canonical"),
        (VALID.replace(b'"a":1', b'"a":1.0'), "1.0 is a floating-point number"),
        (VALID.replace(b'"a":1', b'"a":NaN'), "NaN is a floating-point number"),
        (VALID.replace(b'"a":1', b'"a":"\\ud800"'), "a text in it is not Unicode"),
        (VALID.replace(b'"a":1', b'"a":"\xff"'), "a text in it is not Unicode"),
        (VALID.replace(b'"a":1', b'"a":' + b"[" * 100_000), "it is nested too deep"),
        (VALID.replace(b'"a":1', b'"a":' + b"9" * 5000), "Exceeds the limit"),
        (VALID.replace(b'"seq":1', b'"seq":true'), "not an object with the fields"),
        (VALID.replace(b'"seq":1', b'"seq":0'), "its number is 0"),
        (VALID.replace(b'"seq":1', b'"seq":1,"x":1'), "not an object with the fields"),
        (VALID.replace(b'"start"', b'"stop"'), "its hash is not that of what it says"),
        (VALID[:-1] + b" \n", "it is not canonical"),
        (b"x" * MOST_BYTES + b"\n", f"it is longer than {MOST_BYTES} bytes"),
        (b"\n", "it is not JSON"),
    ],
    ids=str.split("blank twice float nan surrogate latin deep huge bool zero more stale end long empty"),
)
def test_a_line_says_why_it_is_no_record(line: bytes, why: str) -> None:
    verdict = verify([line])
    assert verdict.damage is Damage.CHANGED
    assert why in verdict.why
    assert len(str(verdict)) < 400


def test_verification_keeps_no_more_than_a_line() -> None:
    def endless() -> Iterator[bytes]:
        head = START
        for body in repeat({"text": "x" * 10_000}, 300):
            record = follow(head, 0, "start", body)
            head = record.head
            yield encode(record)

    tracemalloc.start()
    try:
        assert verify(endless()).whole.seq == 300
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_a_record_cannot_be_passed_off_under_another_number() -> None:
    first, second = chain([{}, {}])
    assert verify(written([first, replace(second, seq=3)])).damage is Damage.CHANGED

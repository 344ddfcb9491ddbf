"""Signed heads: how far a journal goes, as its host said at a moment, to be kept where the journal is not.

A signed head is a line of canonical JSON, as a record of the journal is. What is signed (Ed25519, RFC 8032) is that
line without its signature. Neither keys nor files live here: who signs and who checks a signature are arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.core.journal import Head
from orchestrator.errors import UsageError

PURPOSE = "orchestrator journal head"
"""Stands in what is signed, so that a signature made for anything else is none for a head."""

MOST_BYTES = 1024
"""The longest line of a signed head that is looked at."""

_FIELDS = {"at": int, "hash": str, "journal": str, "key": str, "purpose": str, "seq": int, "signature": str}


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The head of the journal called `journal` at `at` (nanoseconds since 1970); `key` and `signature` are hexadecimal.

    `key` is the public one of whoever signed.
    """

    journal: str
    head: Head
    at: int
    key: str
    signature: str


def sign_head(journal: str, head: Head, at: int, key: str, sign: Callable[[bytes], bytes]) -> SignedHead:
    """Return a head that is signed by `sign`, whose public key is `key`."""
    return SignedHead(journal, head, at, key, sign(_statement(journal, head, at, key)).hex())


def encode_head(signed: SignedHead) -> bytes:
    """Return a signed head's line, with its end."""
    fields = _fields(signed.journal, signed.head, signed.at, signed.key)
    return _canonical({**fields, "signature": signed.signature}) + b"\n"


def decode_head(line: bytes, is_signed: Callable[[bytes, bytes, bytes], bool]) -> SignedHead:
    """Return the signed head on a line; `is_signed` tells whether a key has signed a text: key, text, signature.

    Raises UsageError if it is none, or the signature is not right.
    """
    try:
        found = json.loads(line[:MOST_BYTES].decode())
    except (ValueError, RecursionError):
        raise UsageError("it is not JSON") from None
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != _FIELDS:
        raise UsageError(f"it is not an object with the fields {', '.join(_FIELDS)}")
    signed = SignedHead(
        found["journal"], Head(found["seq"], found["hash"]), found["at"], found["key"], found["signature"]
    )
    try:
        text = _statement(signed.journal, signed.head, signed.at, signed.key)
        right = encode_head(signed).rstrip() == line.rstrip() and is_signed(
            bytes.fromhex(signed.key), text, bytes.fromhex(signed.signature)
        )
    except ValueError:
        right = False
    if not right:
        raise UsageError("its signature is not that of what it says")
    return signed


def read_heads(
    lines: Iterable[bytes], is_signed: Callable[[bytes, bytes, bytes], bool]
) -> tuple[list[SignedHead], list[str]]:
    """Return the signed heads on these lines, and what is wrong with the others, a line each."""
    heads, wrong = [], []
    for number, line in enumerate(lines, 1):
        try:
            heads.append(decode_head(line, is_signed))
        except UsageError as error:
            wrong.append(f"line {number}: {error}")
    return heads, wrong


def parse_head(text: str) -> tuple[Head | None, str]:
    """Read ``NUMBER:HASH``, or a hash whose number is not known, which is returned beside None.

    UsageError if it is neither.
    """
    number, _, hashed = text.strip().lower().rpartition(":")
    if len(hashed) != 64 or not set(hashed) <= set("0123456789abcdef"):
        raise UsageError(f"{text[:80]!r} is no head: give the 64 hexadecimal digits of its hash, or NUMBER:HASH")
    if not number:
        return None, hashed
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise UsageError(f"{text[:80]!r} is no head: {number[:20]!r} is no record's number")
    return Head(int(number), hashed), ""


def _statement(journal: str, head: Head, at: int, key: str) -> bytes:
    return _canonical(_fields(journal, head, at, key))


def _fields(journal: str, head: Head, at: int, key: str) -> dict[str, Any]:
    return {"at": at, "hash": head.hash, "journal": journal, "key": key, "purpose": PURPOSE, "seq": head.seq}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

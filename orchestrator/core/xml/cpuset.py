"""libvirt's cpuset syntax: ``1-4,^3,6`` in ``<vcpu cpuset>`` and in every pin element.

Not the kernel's cpulist: here ``^`` takes a core out again, fields count in the order they are written,
and core numbers end below 16384. What is accepted follows virBitmapParse (libvirt 9.0, src/util/virbitmap.c)
to the letter, odd corners included, since a checker that is stricter or laxer than libvirt would be wrong.

A set of cores is an int whose bit N stands for core N: 16384 cores cost 2 KiB, and ranges cost one addition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CORE_LIMIT = 16384
"""Core numbers are below this one (VIR_DOMAIN_CPUMASK_LEN)."""

_SPACE = r"[ \t\n\f\r]*+"
_FIELD = re.compile(
    rf"(?P<without>\^?)(?P<first>[0-9]++){_SPACE}"
    rf"(?P<range>-{_SPACE}(?P<last>[+-]?[0-9]++){_SPACE})?(?P<end>,{_SPACE}|\Z)"
)


def parse_cpuset(text: str) -> int:
    """Return the cores that `text` names, as a bit mask that is never 0.

    Raises ValueError with one line that says what libvirt would not accept. Costs time linear in the
    length of `text`.
    """
    at = len(text) - len(text.lstrip(" \t\n\f\r"))
    if at == len(text):
        raise ValueError("is empty; list cores as N, N-M or ^N, with commas between them")
    mask = 0
    while at < len(text):
        field = _FIELD.match(text, at)
        if field is None or (field["without"] and field["range"]):
            raise ValueError(f"at {shown(text[at:])}: expected a core N, a range N-M or an exclusion ^N")
        mask = _apply(field, mask)
        at = field.end()
    if not mask:
        raise ValueError(f"{shown(text)} leaves no core")
    return mask


def _apply(field: re.Match[str], mask: int) -> int:
    """Return `mask` with one field of a cpuset put in, or taken out."""
    first = _core(field["first"])
    last = first if field["last"] is None else _core(field["last"])
    if last < first:
        raise ValueError(f"{shown(field[0])}: the range ends before it begins")
    cores = (1 << last + 1) - (1 << first)
    return mask & ~cores if field["without"] else mask | cores


def _core(digits: str) -> int:
    """Return the core number; anything negative comes back as -1, but for ``-0``, which libvirt lets pass."""
    number = digits.lstrip("+-").lstrip("0") or "0"
    if digits.startswith("-") and number != "0":
        return -1
    # The length first: int() itself refuses thousands of digits.
    if len(number) > 5 or int(number) >= CORE_LIMIT:
        raise ValueError(f"core {shown(digits)} is not below {CORE_LIMIT}, where libvirt's core numbers end")
    return int(number)


def cores_in(mask: int) -> tuple[int, ...]:
    """Return the core numbers in a bit mask, ascending."""
    return tuple(core for core in range(mask.bit_length()) if mask >> core & 1)


def mask_of(cores: Iterable[int]) -> int:
    """Return the bit mask of these core numbers."""
    mask = 0
    for core in cores:
        mask |= 1 << core
    return mask


def plain(text: str, width: int = 60) -> str:
    """Return foreign text fit for one line of a message: printable, at most `width` characters."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text[: 4 * width].split()))
    return line if len(line) <= width else f"{line[: width - 3]}..."


def shown(text: str) -> str:
    """Return foreign text as `plain` does, in quotes."""
    return f"'{plain(text)}'"

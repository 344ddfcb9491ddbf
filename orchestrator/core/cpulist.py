"""Sets of CPU numbers in the kernel's two notations: lists such as ``0-3,8`` and hexadecimal masks.

Nothing else lives here. The notations are those of the kernel's own documentation (admin-guide,
"The kernel's command-line parameters", section "cpu lists") and of its bitmap printing: masks are
32-bit words, the most significant first, parted by commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from orchestrator.errors import UsageError

MAX_CPU = 65535
"""The largest CPU number that is believed: eight times what the largest Linux builds allow."""

_ITEM = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9})/([0-9]{1,9}))?)?")
_MASK = re.compile(r"[0-9a-fA-F]*|[0-9a-fA-F]{1,8}(?:,[0-9a-fA-F]{1,8})+")


@lru_cache(maxsize=4096)
def parse_cpulist(text: str) -> frozenset[int]:
    """Return the CPU numbers that a kernel CPU list names; an empty text names none.

    Items are parted by commas or white space: ``N``, ``N-M`` (ascending), or ``N-M:USED/GROUP``,
    which takes the first USED numbers of every GROUP in the range. Results are remembered, since a
    machine repeats the same few texts once for each of its CPUs.

    Growth: linear in the numbers named. Raises UsageError, naming the item that is wrong.
    """
    cpus: set[int] = set()
    for item in text.replace(",", " ").split():
        cpus.update(_item(item))
    return frozenset(cpus)


def _item(item: str) -> Iterator[int]:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise UsageError(f"CPU list: {item[:40]!r} is not N, N-M or N-M:USED/GROUP; a list looks like 0-3,8")
    first = int(match[1])
    last = int(match[2] or first)
    group = int(match[4] or 1)
    used = int(match[3] or group)
    if max(first, last) > MAX_CPU:
        raise UsageError(f"CPU list: {item!r} goes past {MAX_CPU}, the largest CPU number there can be")
    if last < first:
        raise UsageError(f"CPU list: the range {item!r} descends; write the smaller number first")
    if not 0 < used <= group:
        raise UsageError(f"CPU list: {item!r} must use at least one CPU and at most all of each group")
    for start in range(first, last + 1, group):
        yield from range(start, min(start + used, last + 1))


def format_cpulist(cpus: Iterable[int]) -> str:
    """Return the kernel's own writing of a set of CPU numbers: ascending, runs as ``N-M``, no blanks.

    The inverse of `parse_cpulist`; an empty set gives an empty text. Growth: n log n, for sorting.
    """
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


@lru_cache(maxsize=4096)
def parse_cpumask(text: str) -> frozenset[int]:
    """Return the CPU numbers of a kernel CPU mask such as ``00000000,00000003``; an empty text has none.

    Growth: linear in the length of the text. Raises UsageError for anything but words of up to
    eight hexadecimal digits parted by commas, or one longer word, as some old kernels have it.
    """
    if _MASK.fullmatch(text.strip()) is None:
        raise UsageError(f"CPU mask: {text[:40]!r} is not words of eight hexadecimal digits parted by commas")
    digits = "".join(word.zfill(8) for word in text.strip().split(",")).lstrip("0")
    if len(digits) > (MAX_CPU + 1) // 4:
        raise UsageError(f"CPU mask: {text[:40]!r} goes past {MAX_CPU}, the largest CPU number there can be")
    cpus: set[int] = set()
    for place, digit in enumerate(reversed(digits)):
        cpus.update(4 * place + bit for bit in range(4) if int(digit, 16) >> bit & 1)
    return frozenset(cpus)


def format_cpumask(cpus: Iterable[int]) -> str:
    """Return a set of CPU numbers as a kernel CPU mask, in as many words as it needs; no CPU is ``00000000``.

    The inverse of `parse_cpumask`. Growth: linear in the largest number.
    """
    bits = sum(1 << cpu for cpu in set(cpus))
    words: list[str] = []
    while bits or not words:
        words.append(f"{bits & 0xFFFFFFFF:08x}")
        bits >>= 32
    return ",".join(reversed(words))

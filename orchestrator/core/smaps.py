"""What a process maps of a directory's files, and how much of that is its alone: /proc/PID/smaps, read (proc(5))."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [0-9]+ *(.*)")
_GONE = " (deleted)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Mappings of one file by one process, in bytes.

    `resident` is what of the mapping is in memory: `shared` with other mappings or private, either `clean`, still the
    file's own pages, or not. `proportional` divides each page by the number of its mappings (Pss); the kernel leaves
    out of that the pages that are `huge`, see `divided`.
    """

    file: str
    writable: bool
    mapped: int
    resident: int
    proportional: int
    shared: int
    private_clean: int
    private_dirty: int
    huge: int = 0


_COUNTS = {
    "Size": ("mapped",),
    "Rss": ("resident",),
    "Pss": ("proportional",),
    "Shared_Clean": ("shared",),
    "Shared_Dirty": ("shared",),
    "Private_Clean": ("private_clean",),
    "Private_Dirty": ("private_dirty",),
    "Shared_Hugetlb": ("resident", "shared", "huge"),
    "Private_Hugetlb": ("resident", "private_clean", "huge"),
}
_NUMBERS = tuple(part.name for part in fields(Share) if part.name not in ("file", "writable"))


def shares(text: str, below: str) -> list[Share]:
    """Return what a process maps of files below a directory, one entry for each file, by path; also deleted ones."""
    found: dict[str, dict[str, int]] = {}
    writable: dict[str, bool] = {}
    for rights, path, counts in _mappings(text):
        file = path.removesuffix(_GONE)
        if not file.startswith(f"{below}/"):
            continue
        # A writable mapping that is private (rw-p) writes to copies.
        writable[file] = writable.get(file, False) or (rights[1], rights[3]) == ("w", "s")
        total = found.setdefault(file, dict.fromkeys(_NUMBERS, 0))
        for key, value in counts.items():
            total[key] += value
    return [Share(file=file, writable=writable[file], **total) for file, total in sorted(found.items())]


def divided(found: Sequence[tuple[str, Share]]) -> list[tuple[str, Share]]:
    """Divide the huge pages of each file by the guests that map it, which are all that do."""
    guests = Counter(share.file for _, share in found)
    return [
        (guest, replace(share, proportional=share.proportional + share.huge // guests[share.file]))
        for guest, share in found
    ]


def _mappings(text: str) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yield rights, path and counts of each mapping of a file."""
    rights = path = ""
    counts: dict[str, int] = {}
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head is not None:
            if path.startswith("/"):
                yield rights, path, counts
            (rights, path), counts = head.groups(), {}
        else:
            key, _, rest = line.partition(":")
            if key in _COUNTS and rest.endswith(" kB"):
                for name in _COUNTS[key]:
                    counts[name] = counts.get(name, 0) + int(rest.split()[0]) * 1024
    if path.startswith("/"):
        yield rights, path, counts

"""The journals of this host: opened for who writes them, their heads kept elsewhere, and looked at from outside."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import HostError, UsageError

if TYPE_CHECKING:
    from orchestrator.core.journal import Head, Verdict
    from orchestrator.host.journal_file import JournalFile

SCHEDULER, GUARD = "journal", "guard"
"""The two journals, by the names of their files: each has one writer, and neither waits for the other."""

RESERVE = 4 << 20
"""Bytes that are kept on the disk for the guard's journal."""


class Witness:
    """Keeps heads of one journal where it is not: signed, in a file under another owner and in the system's log."""

    def __init__(self, name: str, state: Path) -> None:
        from orchestrator.core import heads
        from orchestrator.host import journal_heads
        from orchestrator.host.places import heads_file
        from orchestrator.host.signing import SigningKey

        self._name = name
        self._heads, self._outside = heads, journal_heads
        self._key = SigningKey(state / "journal.key")
        self._file = journal_heads.HeadsFile(heads_file(os.environ), _protect())
        self._kept = ""
        self.notes = self._file.notes

    def keep(self, head: Head) -> None:
        """Keep a head, unless it was the last one to be kept. HostError if the file does not take it."""
        if not head.seq or head.hash == self._kept:
            return
        signed = self._heads.sign_head(self._name, head, time.time_ns(), self._key.public.hex(), self._key.sign)
        line = self._heads.encode_head(signed)
        self._outside.tell_syslog(f"journal head {line.decode().strip()}")
        self._file.append(line)
        self._kept = head.hash

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def opened(name: str, state: Path, *, reserve: int = 0) -> Iterator[tuple[JournalFile, Witness]]:
    """Open a journal for its writer; its head is kept once more in the end. HostError if that cannot be."""
    from orchestrator.host.journal_file import JournalFile

    journal = JournalFile(state / f"{name}.jsonl", _protect(), reserve=reserve)
    try:
        witness = Witness(name, state)
        try:
            yield journal, witness
            with contextlib.suppress(HostError):  # it was said before that the disk takes none
                witness.keep(journal.head)
        finally:
            witness.close()
    finally:
        journal.close()


def _protect() -> Callable[[int, bool], str]:
    """Return what makes files append-only; not those in a folder that somebody has named, who may want to remove it."""
    from orchestrator.host.file_flags import set_append_only
    from orchestrator.host.journal_file import unprotected

    return unprotected if os.environ.get("ORCHESTRATOR_STATE_DIR") else set_append_only


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of one journal: `kept` counts the heads it was compared with, `wrong` says which were no heads."""

    name: str
    files: tuple[str, ...]
    verdict: Verdict
    append_only: bool
    kept: int = 0
    wrong: tuple[str, ...] = field(default=())

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.verdict.damage is None and not self.wrong


def verify_own(key: str = "") -> list[Report]:
    """Look at the journals of this host, by the heads that were kept; of `key` alone, if it is given."""
    from orchestrator.host.journal_file import segments
    from orchestrator.host.places import heads_file, state_directory

    state, where = state_directory(os.environ), heads_file(os.environ)
    kept, wrong = _kept(where, key)
    reports = []
    for name in (SCHEDULER, GUARD):
        path = state / f"{name}.jsonl"
        heads = kept.get(name, [])
        if path.exists() or heads:
            reports.append(_look(name, segments(path), heads, wrong=wrong))
    if not reports:
        raise HostError(f"{state}: there is no journal yet; `orchestrator serve` begins one")
    return reports


def verify_files(files: Sequence[Path], head: str = "", heads: Path | None = None, key: str = "") -> Report:
    """Look at a journal in these files, in this order, by a head that was kept elsewhere, or by a file of such."""
    from orchestrator.core.heads import parse_head

    known, anywhere = parse_head(head) if head else (None, "")
    name = SCHEDULER if not files else files[-1].name.partition(".")[0]
    kept, wrong = ({}, ()) if heads is None else _kept(heads, key)
    all_heads = [*kept.get(name, []), *(() if known is None else (known,))]
    return _look(name, files, all_heads, anywhere=anywhere, wrong=wrong)


def own_files() -> list[Path]:
    """Return the files of the scheduler's journal."""
    from orchestrator.host.journal_file import segments
    from orchestrator.host.places import state_directory

    return segments(state_directory(os.environ) / f"{SCHEDULER}.jsonl")


def _look(
    name: str, files: Sequence[Path], heads: Sequence[Head], *, anywhere: str = "", wrong: tuple[str, ...] = ()
) -> Report:
    from orchestrator.core.journal import verify

    there = [path for path in files if path.exists() or path is not files[-1]]
    verdict = verify(_lines(there), heads=heads, anywhere=anywhere)
    protected = bool(there) and _is_append_only(there[-1])
    return Report(name, tuple(map(str, files)), verdict, protected, len(heads) + bool(anywhere), wrong)


def _kept(path: Path, key: str) -> tuple[dict[str, list[Head]], tuple[str, ...]]:
    """Return the heads in a file by the journal that they are of, and what is wrong with it."""
    from orchestrator.core.heads import read_heads
    from orchestrator.host.signing import is_signed

    if not path.exists():
        return {}, ()
    signed, wrong = read_heads(_lines([path]), is_signed)
    kept: dict[str, list[Head]] = {}
    for each in signed:
        if key and each.key != key.lower():
            wrong.append(f"the head of record {each.head.seq} is signed by another key, {each.key}")
        else:
            kept.setdefault(each.journal, []).append(each.head)
    return kept, tuple(f"{path}: {line}" for line in wrong)


def _lines(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            with path.open("rb") as file:
                yield from file
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}; run as root, or name another file") from None


def _is_append_only(path: Path) -> bool:
    from orchestrator.host.file_flags import is_append_only

    with path.open("rb") as file:
        return is_append_only(file.fileno())

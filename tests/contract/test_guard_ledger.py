"""What the guard writes down while the disk hangs or fails, and what is read of it meanwhile and afterwards."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.emergency import LATE, Act, Request, Standing
from orchestrator.core.journal import Record, decode, verify
from orchestrator.errors import HostError
from orchestrator.guard.acts import Acts
from orchestrator.guard.ledger import Before, Ledger
from orchestrator.host.guard_book import GuardBook
from orchestrator.host.journal_file import JournalFile
from orchestrator.host.reserve_file import ReserveFile
from tests.contract.guard_parts import (
    PATIENCE,
    ROOT_AT_CONSOLE,
    SURROUNDINGS,
    clock,
    eventually,
    guests,
    lookalike,
    writing,
)
from tests.fakes.journal import FakeJournal
from tests.fakes.reserve import FakeReserve

AT_ONCE = 0.02


class Hanging(FakeJournal):
    """A journal on a disk that answers to nobody while `answers` is not set; `asked` is set when it has been asked."""

    def __init__(self) -> None:
        super().__init__()
        self.answers, self.asked = threading.Event(), threading.Event()

    def append(self, kind: str, body: Mapping[str, Any], at: int) -> Record:
        self.asked.set()
        assert self.answers.wait(PATIENCE)
        return super().append(kind, body, at)


@contextlib.contextmanager
def hanging() -> Iterator[Hanging]:
    journal = Hanging()
    try:
        yield journal
    finally:
        journal.answers.set()


@contextlib.contextmanager
def next_ledger(path: Path, kept: Path) -> Iterator[tuple[Ledger, ReserveFile]]:
    """Begin anew on what there is."""
    with (
        contextlib.closing(JournalFile(path)) as journal,
        contextlib.closing(ReserveFile(kept, 1 << 16)) as reserve,
        writing(Ledger(journal, reserve, clock, before=Before(reserved=reserve.records()))) as ledger,
    ):
        yield ledger, reserve


def lines(journal: FakeJournal) -> list[tuple[int, str]]:
    return [(record.seq, record.kind) for record in journal.records]


def test_an_emergency_does_not_wait_for_a_disk_that_hangs_and_the_journal_says_so_afterwards() -> None:
    reserve = FakeReserve()
    with (
        lookalike() as process,
        hanging() as journal,
        writing(Ledger(journal, reserve, clock, limit=AT_ONCE)) as ledger,
    ):
        acts = Acts(ledger, guests(), Standing(), SURROUNDINGS)
        ended = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="loops", guests=("web",)))
        assert process.wait() == -signal.SIGKILL
        assert (ended.code, journal.records) == (0, [])
        assert "record 1 is not on the disk yet: the disk has not answered for " in ended.lines[1]
        assert ended.data["late"]
        banned = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.BAN, reason="coins", user="eve"))
        assert (banned.code, acts.standing.bans["eve"].reason) == (0, "coins")
        assert [(record.seq, record.kind) for record in reserve.records()] == [(1, "kill"), (2, "ban")]
        status = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.STATUS))
        assert (status.data["owed"], "has not answered for " in status.data["trouble"]) == (2, True)
        shown = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.JOURNAL))
        assert [record["kind"] for record in shown.data["records"]] == ["kill", "ban"]
        journal.answers.set()
        eventually(lambda: reserve.cleared)
        again = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.UNBAN, reason="gone", user="eve"))
        eventually(lambda: ledger.owed == 0)
    assert again.code == 0
    assert lines(journal)[:3] == [(1, "kill"), (2, "ban"), (3, LATE)]
    late = journal.records[2].body
    assert (late["first"], late["last"], "has not answered for " in late["why"]) == (1, 2, True)
    assert (4, "unban") in lines(journal)


def test_a_disk_that_fails_is_not_waited_for_and_is_tried_again() -> None:
    journal, reserve = FakeJournal(), FakeReserve()
    journal.full = True
    with writing(Ledger(journal, reserve, clock, limit=PATIENCE)) as ledger:
        assert "No space left" in ledger.write("kill", {"reason": "x"}).late
        assert "No space left" in ledger.write("kill", {"reason": "y"}).late
        journal.full = False
        assert ledger.write("lift", {"reason": "z"}).late == "", "all that was owed is written before it"
        eventually(lambda: reserve.cleared)
        assert ledger.trouble == ""
    assert lines(journal) == [(1, "kill"), (2, "kill"), (3, "lift"), (4, LATE)]
    assert (journal.records[-1].body["first"], journal.records[-1].body["last"]) == (1, 2)


def test_tries_leave_half_of_the_reserve_to_acts_and_what_nothing_takes_leaves_no_gap() -> None:
    journal, reserve = FakeJournal(), FakeReserve(room=2000)
    journal.full = True
    with writing(Ledger(journal, reserve, clock, limit=PATIENCE)) as ledger:
        for _ in range(3):
            ledger.write("refused", {"why": "x" * 100}, urgent=False)
        with pytest.raises(HostError, match="the reserve is used up, too"):
            ledger.write("refused", {"why": "x" * 100}, urgent=False)
        assert ledger.write("kill", {"reason": "y"}).record.seq == 4
        journal.full = False
        ledger.try_again()
        eventually(lambda: reserve.cleared)
    assert lines(journal) == [(1, "refused"), (2, "refused"), (3, "refused"), (4, "kill"), (5, LATE)]


def test_what_is_refused_while_it_is_being_written_is_said_to_be_void() -> None:
    with hanging() as journal, writing(Ledger(journal, FakeReserve(room=0), clock, limit=AT_ONCE)) as ledger:
        with pytest.raises(HostError, match="cannot be recorded"):
            ledger.write("kill", {"reason": "x"})
        journal.answers.set()
        eventually(lambda: ledger.owed == 0 and len(journal.records) == 2)
    assert journal.records[1].body["not_done"] == [1]


def test_a_guard_that_died_meanwhile_has_its_records_taken_up_by_the_next_one(tmp_path: Path) -> None:
    path, kept = tmp_path / "guard.jsonl", tmp_path / "run" / "reserve.jsonl"
    book = GuardBook(path, kept)
    with contextlib.closing(JournalFile(path)) as journal:
        journal.append("freeze", {"reason": "first"}, 0)
    assert [record.kind for record in book.news()] == ["freeze"]
    with hanging() as stuck, contextlib.closing(ReserveFile(kept, 1 << 16)) as reserve:
        stuck.records.append(decode(path.read_bytes()))
        with writing(Ledger(stuck, reserve, clock, limit=AT_ONCE)) as ledger:
            ledger.write("ban", {"reason": "coins", "user": "eve", "until": None})
            ledger.write("lockdown", {"reason": "fire"})
            # The scheduler knows at once, although the disk does not.
            assert [record.kind for record in book.news()] == ["ban", "lockdown"]
            assert book.barred("bob", 0) == "lockdown by the emergency console: fire"
            left = kept.read_bytes()
            stuck.answers.set()
    kept.write_bytes(left)  # as a guard leaves it that is killed before the disk answers
    assert len(path.read_bytes().splitlines()) == 1
    with next_ledger(path, kept) as (ledger, reserve):
        assert [record.kind for record in ledger.recent][:2] == ["ban", "lockdown"]
        eventually(lambda: ledger.owed == 0 and not reserve.records())
    with path.open("rb") as file:
        assert verify(file).whole.seq == 4
    assert [record.kind for record in book.news()] == [LATE], "the others are known"
    assert [record.kind for record in GuardBook(path, kept).news()] == ["freeze", "ban", "lockdown", LATE]
    # Once more: the disk has them, but whoever was to say so was killed before.
    kept.write_bytes(left)
    with next_ledger(path, kept) as (ledger, reserve):
        eventually(lambda: ledger.owed == 0 and not reserve.records())
        assert [record.kind for record in book.news()] == [LATE]


def test_what_follows_from_nothing_is_kept_all_the_same() -> None:
    stray = FakeJournal()
    for _ in range(3):
        stray.append("kill", {"reason": "x"}, 0)
    journal, reserve = FakeJournal(), FakeReserve()
    with writing(Ledger(journal, reserve, clock, before=Before(reserved=stray.records[2:]))) as ledger:
        eventually(lambda: ledger.owed == 0 and reserve.cleared)
    (record,) = journal.records
    assert [each["hash"] for each in record.body["unplaced"]] == [stray.records[2].hash]


def test_what_holds_is_known_beyond_a_rotation_and_forgotten_with_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "guard.jsonl"
    book = GuardBook(path)
    with contextlib.closing(JournalFile(path, rotate_at=600)) as journal:
        journal.append("ban", {"reason": "coins", "user": "eve", "until": None}, 0)
        assert [record.seq for record in book.news()] == [1]
        for _ in range(12):
            journal.append("lift", {"reason": "again"}, 0)
        assert len(list(tmp_path.iterdir())) > 3
        assert [record.seq for record in book.news()] == list(range(2, 14))
        assert "coins" in book.barred("eve", 0)
    assert "coins" in GuardBook(path).barred("eve", 0)
    for each in tmp_path.iterdir():
        each.unlink()
    with contextlib.closing(JournalFile(path)) as journal:
        journal.append("unban", {"reason": "new", "user": "bob"}, 0)
    assert [record.seq for record in book.news()] == [1]
    assert book.barred("eve", 0) == ""


def test_the_reserve_is_a_file_of_one_size(tmp_path: Path) -> None:
    path = tmp_path / "run" / "reserve.jsonl"
    with contextlib.closing(ReserveFile(path, 8192)) as reserve:
        assert (path.stat().st_size, path.stat().st_blocks * 512 >= 8192, path.stat().st_mode & 0o777) == (
            0,
            True,
            0o600,
        )
        reserve.add(b"x" * 4000, urgent=False)
        with pytest.raises(HostError, match="the reserve of 8 KiB is used up, too"):
            reserve.add(b"x" * 4000, urgent=False)
        reserve.add(b"x" * 4000, urgent=True)
        with pytest.raises(HostError, match="used up"):
            reserve.add(b"x" * 4000, urgent=True)
        assert reserve.records() == []
        reserve.clear()
        assert (path.read_bytes(), path.stat().st_blocks * 512 >= 8192) == (b"", True)
    with pytest.raises(HostError, match="the guard's reserve cannot be there"):
        ReserveFile(tmp_path / "none" / "none" / "reserve.jsonl", 8192)

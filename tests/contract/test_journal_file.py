"""The Journal port: the fake and the file agree; and what only a file can meet: crashes, full disks, other hands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.journal import MOST_BYTES, START, Damage, Head, decode, encode, follow, verify
from orchestrator.errors import HostError, UsageError
from orchestrator.host.journal_file import JournalFile
from orchestrator.ports import Journal
from tests.contract.small_disk import DISKS, small_disk
from tests.fakes.journal import FakeJournal


@pytest.fixture(params=["fake", "real"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    made: Journal = FakeJournal() if request.param == "fake" else JournalFile(tmp_path / "journal")
    yield made
    made.close()


def verified(path: Path, head: Head | None = None) -> tuple[int, Damage | None]:
    with path.open("rb") as lines:
        verdict = verify(lines, head)
    return verdict.whole.seq, verdict.damage


def test_it_begins_empty_and_each_record_follows_from_the_one_before(journal: Journal) -> None:
    assert (journal.head, journal.notes) == (START, ())
    first = journal.append("start", {"guest": "a"}, 7)
    assert journal.head == first.head
    second = journal.append("stop", {"guest": "a"}, 8)
    assert (first.seq, first.at, first.kind, first.body) == (1, 7, "start", {"guest": "a"})
    assert (second.seq, second.previous) == (2, first.hash)
    assert journal.head == second.head


def test_what_is_no_record_leaves_it_as_it_was(journal: Journal) -> None:
    head = journal.append("start", {}, 0).head
    with pytest.raises(UsageError, match="floating-point"):
        journal.append("load", {"of": 0.5}, 0)
    assert journal.head == head
    assert journal.append("stop", {}, 0).previous == head.hash


def test_a_closed_one_says_so(journal: Journal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(HostError, match="closed; open it again"):
        journal.append("start", {}, 0)


# The file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def written(path: Path, count: int, **body: Any) -> list[bytes]:
    """Write a journal of so many records, and return its lines."""
    journal = JournalFile(path)
    for number in range(count):
        journal.append("start", {"number": number, **body}, number)
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def test_what_was_appended_is_there_when_it_is_opened_again(path: Path) -> None:
    lines = written(path, 3)
    journal = JournalFile(path)
    assert journal.head == decode(lines[-1]).head
    assert journal.notes == ()
    fourth = journal.append("stop", {}, 9)
    journal.close()
    assert path.read_bytes() == b"".join(lines) + encode(fourth)
    assert verified(path, fourth.head) == (4, None)


def test_only_its_owner_may_read_it(path: Path) -> None:
    written(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_last_line_is_set_aside_and_told(path: Path, count: int, kept: int) -> None:
    *lines, last = written(path, count)
    path.write_bytes(b"".join(lines) + last[:kept])
    journal = JournalFile(path)
    aside = Path(f"{path}.torn-1")
    assert aside.read_bytes() == last[:kept]
    assert aside.stat().st_mode & 0o777 == 0o600
    assert journal.notes == (
        f"{path}: its last line was torn, as by a crash in the middle of writing; "
        f"those {len(last[:kept])} bytes are now in {aside}",
    )
    assert journal.head.seq == count - 1
    journal.append("stop", {}, 0)
    journal.close()
    assert verified(path) == (count, None)


def test_nothing_that_was_set_aside_is_overwritten(path: Path) -> None:
    for number in range(3):
        with path.open("ab") as file:
            file.write(b"torn %d" % number)
        JournalFile(path).close()
    assert [Path(f"{path}.torn-{number + 1}").read_bytes() for number in range(3)] == [b"torn 0", b"torn 1", b"torn 2"]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_damaged_end_is_refused_and_left_as_it_is(path: Path, count: int) -> None:
    *lines, last = written(path, count)
    other = follow(Head(count - 1, "f" * 64), 0, "start", {})
    for wrong in (last.replace(b"start", b"stop"), b"noise\n", b"\n", bytes(64) + b"\n", encode(other)):
        path.write_bytes(b"".join(lines) + wrong)
        with pytest.raises(HostError, match=r"journal: the journal's end is damaged: .*start anew") as caught:
            JournalFile(path)
        assert len(caught.value.lines()) == 1
        assert path.read_bytes() == b"".join(lines) + wrong
    path.write_bytes(b"".join(lines) + bytes(MOST_BYTES))
    with pytest.raises(HostError, match="no line ends in its last"):
        JournalFile(path)


def test_the_longest_records_are_taken_up_again(path: Path) -> None:
    lines = written(path, 2, text="x" * (MOST_BYTES - 300))
    path.write_bytes(b"".join(lines) + b'{"torn')
    journal = JournalFile(path)
    assert journal.head == decode(lines[-1]).head
    journal.close()


@DISKS
def test_a_full_disk_takes_nothing_and_breaks_nothing(kind: str, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as disk:
        journal = JournalFile(disk.path / "journal")
        first = journal.append("start", {}, 0)
        with disk.full():
            for _ in range(2):
                with pytest.raises(HostError, match=r"journal: 'stop' cannot be recorded: .*; make room") as caught:
                    journal.append("stop", {"text": "x" * 5000}, 0)
        assert len(caught.value.lines()) == 1
        assert journal.head == first.head
        assert (disk.path / "journal").read_bytes() == encode(first)
        second = journal.append("stop", {"text": "x" * 5000}, 0)
        journal.close()
        assert verified(disk.path / "journal", second.head) == (2, None)


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parent in ("none", "file"):
        with pytest.raises(HostError, match=rf"{parent}/journal: journal: cannot be opened: .* directory; make room"):
            JournalFile(tmp_path / parent / "journal")


def test_a_read_only_disk_is_told() -> None:
    with pytest.raises(HostError, match=r"journal: cannot be opened: (Read-only file system|Permission denied); "):
        JournalFile(Path("/sys/kernel/journal"))


def test_a_journal_that_others_change_or_delete_takes_nothing_more(path: Path) -> None:
    journal = JournalFile(path)
    journal.append("start", {}, 0)
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(HostError, match="somebody else changed the journal"):
        journal.append("stop", {}, 0)
    path.unlink()
    with pytest.raises(HostError, match="was deleted under the scheduler"):
        journal.append("stop", {}, 0)
    journal.close()


CHILD = """
import sys
from pathlib import Path
from orchestrator.host.journal_file import JournalFile
journal = JournalFile(Path(sys.argv[1]))
while True:
    print(journal.append("start", {"text": "x" * 5000}, 0).seq, flush=True)
"""


def test_what_was_acknowledged_outlives_a_kill(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(20)]
        process.kill()
        told += process.stdout.readlines()
    journal = JournalFile(path)
    assert journal.head.seq >= int(told[-1])
    assert journal.append("stop", {}, 0).seq == journal.head.seq
    journal.close()
    assert verified(path, journal.head) == (journal.head.seq, None)

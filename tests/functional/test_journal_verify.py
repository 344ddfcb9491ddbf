"""`journal verify`: 10,000 random mutations; and what its user sees."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest

from orchestrator.core.journal import Head, verify
from orchestrator.errors import HostError, UsageError
from orchestrator.wiring import journals
from tests.functional.program import Program
from tests.unit.journal_mutations import mutations

MANY = 10_000


def test_ten_thousand_mutations_are_found_and_named(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    wrong = []
    for number, (mutation, head) in enumerate(mutations(MANY, seed)):
        found = verify(io.BytesIO(mutation.data), head)
        if found.seq != mutation.record or found.damage not in mutation.damages:
            wrong.append(f"{mutation}: {found}")
        if number % 100 == 0:  # by the way of the command, too
            path = tmp_path / f"journal-{number}.jsonl"
            path.write_bytes(mutation.data)
            assert journals.verify_files([path], head=f"{head.seq}:{head.hash}").verdict == found
    assert wrong == [], f"seed {seed}"


@pytest.fixture
def state(program: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder in which the scheduler's journal has five records, of which two heads were kept."""
    folder = program.directory / "s"
    folder.mkdir()
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(folder))
    for count in (2, 3):
        with journals.opened(journals.SCHEDULER, folder) as (journal, _):
            for number in range(count):
                journal.append("start", {"guest": f"g{number}"}, number)
    return folder


def test_a_journal_is_compared_with_the_heads_that_were_kept(program: Program, state: Path) -> None:
    (report,) = program.json("journal", "verify")
    assert (report["journal"], report["whole"], report["records"], report["heads"]) == ("journal", True, 5, 2)
    told = program("journal", "verify").out
    assert told.startswith("journal: whole: 5 records, the last one's hash is ")
    assert "(2 heads kept elsewhere; " in told
    key = json.loads((state / "heads.jsonl").read_text().splitlines()[0])["key"]
    assert journals.verify_own(key)[0].is_whole
    (other,) = journals.verify_own("0" * 64)
    assert "the head of record 2 is signed by another key" in other.wrong[0]
    assert not other.is_whole
    path = state / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    (report,) = program.json("journal", "verify", code=1)
    assert (report["damage"], report["record"], report["line"]) == ("cut off", 5, 5)


def test_heads_that_were_changed_are_told(program: Program, state: Path) -> None:
    heads = state / "heads.jsonl"
    heads.write_bytes(heads.read_bytes().replace(b'"seq":5', b'"seq":6'))
    told = program("journal", "verify")
    assert told.code == 1
    assert f"{heads}: line 2: its signature is not that of what it says" in told.out


def test_files_and_a_head_of_ones_own(program: Program, state: Path) -> None:
    path = state / "journal.jsonl"
    last = Head(5, json.loads(path.read_bytes().splitlines()[-1])["hash"])
    assert program("journal", "verify", "--head", last.hash).code == 0
    for head in (last.hash, f"5:{last.hash}"):
        assert journals.verify_files([path], head).is_whole
    assert not journals.verify_files([path], "f" * 64).is_whole
    with pytest.raises(UsageError, match="none: cannot be read: No such file"):
        journals.verify_files([Path("none"), path])
    wrong = program("journal", "verify", "--head", "12")
    assert (wrong.code, wrong.lines) == (
        2,
        ["'12' is no head: give the 64 hexadecimal digits of its hash, or NUMBER:HASH"],
    )


def test_without_a_journal_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(tmp_path))
    with pytest.raises(HostError, match="there is no journal yet"):
        journals.verify_own()


def test_a_head_is_kept_once_and_also_by_who_fails(state: Path) -> None:
    def fails() -> None:
        with journals.opened(journals.SCHEDULER, state) as (journal, witness):
            for _ in range(2):
                witness.keep(journal.head)
            witness.keep(journal.append("start", {}, 0).head)
            raise HostError("as a daemon that fails")

    with pytest.raises(HostError, match="as a daemon"):
        fails()
    assert len((state / "heads.jsonl").read_bytes().splitlines()) == 4

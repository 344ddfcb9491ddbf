"""The Store port: the fake and SQLite agree; and what only a file can meet: crashes, damage, full disks, versions."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import HostError, UsageError
from orchestrator.host.store import SCRIPTS, SqliteStore
from orchestrator.ports import MOST_ENDINGS, Ending, Store, StoredGuest
from tests.contract.small_disk import DISKS, small_disk
from tests.fakes.store import FakeStore

GUEST = StoredGuest(
    name="web",
    uuid="11111111-1111-4111-8111-111111111111",
    owner="alice",
    priority=1,
    specification='{"name":"wéb"}',
    standing="runnable",
    cores="2-3,8",
    started_at=1_700_000_000_123_456_789,
)
ENDED = Ending(name="web", owner="alice", uuid=GUEST.uuid, ended_at=1_700_000_001, how="stopped", kind="stopped")


@pytest.fixture(params=["fake", "real"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = FakeStore() if request.param == "fake" else SqliteStore(tmp_path / "store.db")
    yield made
    made.close()


def test_accounts_are_put_together_and_an_empty_text_forgets(store: Store) -> None:
    assert store.accounts() == {}
    store.put_accounts({"": "clock", "ann": "a", "bén": "b"})
    store.put_accounts({"": "later", "ann": "", "zoe": ""})
    assert store.accounts() == {"": "later", "bén": "b"}
    store.replace_all([GUEST])
    assert store.accounts() == {"": "later", "bén": "b"}
    with pytest.raises(UsageError):
        store.put_accounts({"": "never", "\ud800": "x"})
    assert store.accounts()[""] == "later", "all of them or none"


def test_it_begins_empty(store: Store) -> None:
    assert (*store.guests(), *store.endings(), *store.notes) == ()


def test_guests_are_remembered_as_they_were_put_and_by_name(store: Store) -> None:
    others = [replace(GUEST, name=name, priority=priority) for name, priority in [("zoo", 0), ("ant", -3)]]
    for guest in (GUEST, *others):
        store.put(guest)
    assert store.guests() == (others[1], GUEST, others[0])
    store.put(replace(GUEST, standing="paused", cores=""))
    assert store.guests() == (others[1], replace(GUEST, standing="paused", cores=""), others[0])


def test_a_guest_is_forgotten_and_how_it_ended_is_remembered(store: Store) -> None:
    store.put(GUEST)
    store.put(replace(GUEST, name="zoo"))
    store.remove("zoo", None)
    assert store.guests() == (GUEST,)
    assert store.endings() == ()
    store.remove("web", ENDED)
    assert store.guests() == ()
    assert store.endings() == (ENDED,)
    store.remove("web", replace(ENDED, how="again"))  # one that is not known may end, too
    assert store.endings() == (replace(ENDED, how="again"), ENDED)


def test_endings_are_chosen_by_owner_and_by_name(store: Store) -> None:
    for name, owner in [("a", "alice"), ("b", "alice"), ("a", "bob")]:
        store.remove(name, replace(ENDED, name=name, owner=owner))
    assert [(ending.name, ending.owner) for ending in store.endings(owner="alice")] == [("b", "alice"), ("a", "alice")]
    assert [(ending.name, ending.owner) for ending in store.endings(name="a")] == [("a", "bob"), ("a", "alice")]
    assert [(ending.name, ending.owner) for ending in store.endings("bob", "a")] == [("a", "bob")]
    assert store.endings("bob", "b") == store.endings(owner="") == ()


def test_only_the_last_endings_are_kept(store: Store) -> None:
    for number in range(MOST_ENDINGS + 5):
        store.remove("none", replace(ENDED, ended_at=number))
    assert [ending.ended_at for ending in store.endings()] == list(range(MOST_ENDINGS + 4, 4, -1))


def test_all_guests_are_replaced_and_endings_stay(store: Store) -> None:
    store.put(GUEST)
    store.remove("web", ENDED)
    store.put(GUEST)
    others = [replace(GUEST, name=name) for name in ("y", "x")]
    store.replace_all(others)
    assert store.guests() == (others[1], others[0])
    assert store.endings() == (ENDED,)
    store.replace_all([])
    assert store.guests() == ()


def test_what_is_no_text_leaves_it_as_it_was(store: Store) -> None:
    store.put(GUEST)
    for wrong in ("\ud800", "a\udcff"):
        with pytest.raises(UsageError, match="is not Unicode"):
            store.put(replace(GUEST, owner=wrong))
        with pytest.raises(UsageError, match="is not Unicode"):
            store.remove("web", replace(ENDED, how=wrong))
        with pytest.raises(UsageError, match="is not Unicode"):
            store.replace_all([replace(GUEST, name="other"), replace(GUEST, owner=wrong)])
    assert store.guests() == (GUEST,)
    assert store.endings() == ()


def test_a_closed_one_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(HostError, match="closed; open it again"):
        store.guests()
    with pytest.raises(HostError, match="closed; open it again"):
        store.put(GUEST)


# The file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def filled(path: Path, count: int = 50) -> None:
    store = SqliteStore(path)
    store.replace_all([replace(GUEST, name=f"g{number:03}") for number in range(count)])
    store.remove("none", ENDED)
    store.close()


def test_what_was_put_is_there_when_it_is_opened_again(path: Path) -> None:
    filled(path)
    store = SqliteStore(path)
    assert len(store.guests()) == 50
    assert store.endings() == (ENDED,)
    assert store.notes == ()
    store.close()


def test_only_its_owner_may_read_it_and_its_log(path: Path) -> None:
    store = SqliteStore(path)
    store.put(GUEST)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    store.close()
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_it_may_be_used_from_another_thread(path: Path) -> None:
    store = SqliteStore(path)
    thread = threading.Thread(target=store.put, args=(GUEST,))
    thread.start()
    thread.join()
    assert store.guests() == (GUEST,)
    store.close()


def test_an_older_file_is_brought_up_to_date(path: Path) -> None:
    with sqlite3.connect(path) as old:
        old.execute(SCRIPTS[0])
        old.execute("INSERT INTO guests VALUES ('web', 'u', 'alice', 1, '{}', 'runnable', '2', 7)")
        old.execute("PRAGMA user_version = 1")
    old.close()
    store = SqliteStore(path)
    assert store.notes == ()
    assert [(guest.name, guest.started_at) for guest in store.guests()] == [("web", 7)]
    store.remove("web", ENDED)
    assert store.endings() == (ENDED,)
    store.close()
    with sqlite3.connect(path) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (len(SCRIPTS),)
    new.close()


def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(
        HostError, match=rf"store.db: the store has version 99, this program knows versions up to {len(SCRIPTS)}; use"
    ):
        SqliteStore(path)
    assert path.read_bytes() == before


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(9000))


def half_of_it(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def a_page_of_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


def another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE guests (name)")
    other.close()


def a_table_less(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE endings")
    other.close()


def a_version_below_zero(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = -2")
    other.close()


@pytest.mark.parametrize(
    "damage", [noise, half_of_it, a_page_of_zeros, another_database, a_table_less, a_version_below_zero]
)
def test_a_damaged_file_is_set_aside_and_told(path: Path, damage: object) -> None:
    assert callable(damage)
    for number in (1, 2):
        filled(path)
        damage(path)
        before = path.read_bytes()
        store = SqliteStore(path)
        aside = Path(f"{path}.corrupt-{number}")
        (note,) = store.notes
        assert note.startswith(f"{path}: the store was damaged (")
        assert f"); it is now {aside}, and a fresh one is filled from what runs" in note
        assert "\n" not in note
        assert aside.stat().st_size == len(before)
        assert (*store.guests(), *store.endings()) == ()
        store.put(GUEST)
        store.close()
        store = SqliteStore(path)
        assert (store.guests(), store.notes) == ((GUEST,), ())
        store.close()
        path.unlink()


def test_the_log_of_a_damaged_file_is_not_taken_for_the_fresh_ones(path: Path) -> None:
    filled(path)
    store = SqliteStore(path)
    store.put(GUEST)
    log = Path(f"{path}-wal").read_bytes()
    store.close()
    noise(path)
    Path(f"{path}-wal").write_bytes(log)
    store = SqliteStore(path)
    assert store.guests() == ()
    store.close()


@DISKS
def test_a_full_disk_takes_nothing_and_breaks_nothing(kind: str, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as disk:
        store = SqliteStore(disk.path / "store.db")
        store.put(GUEST)
        large = replace(GUEST, specification="x" * 50_000)
        with disk.full():
            for _ in range(2):
                with pytest.raises(
                    HostError, match=r"store.db: the store cannot be written: .*; make room or give access"
                ) as caught:
                    store.put(large)
            assert store.guests() == (GUEST,)
        assert len(caught.value.lines()) == 1
        store.put(large)
        assert store.guests() == (large,)
        store.close()


@DISKS
def test_no_store_begins_on_a_full_disk(kind: str, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as disk:
        with disk.full(), pytest.raises(HostError, match=r"store.db: the store cannot be opened: .*; make room or giv"):
            SqliteStore(disk.path / "store.db")
        store = SqliteStore(disk.path / "store.db")
        assert (store.guests(), store.notes) == ((), ())
        store.close()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parent in (tmp_path / "none", tmp_path / "file", Path("/sys/kernel")):
        with pytest.raises(HostError, match=rf"{parent}/store: the store cannot be opened: .*; make room or give acc"):
            SqliteStore(parent / "store")


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from orchestrator.host.store import SqliteStore
from tests.contract.test_store import ENDED, GUEST
store = SqliteStore(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    store.replace_all([replace(GUEST, name=name, started_at=number) for name in "abc"])
    store.remove("a", replace(ENDED, ended_at=number))
    print(number, flush=True)
"""


def test_what_was_committed_outlives_a_kill_at_any_moment(path: Path) -> None:
    chance = random.Random(4)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(chance.randrange(1, 150))]
            process.kill()
            told += process.stdout.readlines()
        store = SqliteStore(path)
        assert store.notes == ()
        numbers = {guest.started_at for guest in store.guests()}
        last = store.endings()[0].ended_at
        assert len(numbers) == 1
        assert last >= int(told[-1])
        assert len(store.guests()) == (2 if last in numbers else 3)
        assert numbers <= {last, last + 1}
        store.close()

"""Payloads in huge pages: made once for all that map them, replaced if they are not what was added, and cleared away.

The places are ordinary directories here, with which all is the same but for the pages; the lab has real ones.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from orchestrator.core.payloads import Payload
from orchestrator.errors import FailedError, HostError
from orchestrator.payloads.huge import mounted
from orchestrator.payloads.store import PayloadStore, is_unchanged
from tests.contract.small_disk import small_disk

MIB = 1 << 20
PAGES = 2 * MIB


@pytest.fixture
def store(tmp_path: Path) -> PayloadStore:
    (tmp_path / "huge").mkdir()
    return PayloadStore(tmp_path / "store", lambda: {PAGES: tmp_path / "huge"})


def add(store: PayloadStore, content: bytes, name: str = "tools", owner: str = "alice") -> Payload:
    source = store.root.with_name(f"source-{name}")
    source.write_bytes(content)
    with source.open("rb") as file:
        return store.add(file.fileno(), name, owner, public=False, quota=64 * MIB)


def copies(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "huge").glob("*/*/*/*"))


def test_a_copy_is_the_payload_filled_up_to_whole_pages_read_only_and_made_once(store: PayloadStore) -> None:
    payload = add(store, b"tools" * 1000)
    checked = store.load(payload, PAGES)
    path = Path(checked.mapped.path)
    assert (checked.mapped.length, checked.mapped.digest) == (PAGES, payload.digest)
    assert path.read_bytes() == (b"tools" * 1000).ljust(PAGES, b"\0")
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert not checked.settled, "what is written through memory leaves no trace, so it is read each time"
    assert is_unchanged(checked.mapped)
    inode = path.stat().st_ino
    assert Path(store.load(payload, PAGES).mapped.path).stat().st_ino == inode


@pytest.mark.parametrize("damage", ["flipped", "cut short"])
def test_a_copy_that_is_not_what_was_added_is_made_anew(store: PayloadStore, damage: str) -> None:
    payload = add(store, b"tools")
    before = store.load(payload, PAGES).mapped
    path = Path(before.path)
    path.chmod(0o600)
    with path.open("r+b") as file:
        if damage == "flipped":
            file.write(b"T")
        else:
            file.truncate(4096)
    again = store.load(payload, PAGES).mapped
    assert path.read_bytes() == b"tools".ljust(PAGES, b"\0")
    assert not is_unchanged(before), "guests that map the one before are told from those that map this one"
    assert is_unchanged(again)


def test_what_is_damaged_in_the_store_itself_is_refused(store: PayloadStore, tmp_path: Path) -> None:
    payload = add(store, b"tools")
    path = store.path(payload)
    path.chmod(0o600)
    path.write_bytes(b"Tools".ljust(4096, b"\0"))
    with pytest.raises(FailedError, match="its file is not what was added"):
        store.load(payload, PAGES)
    assert copies(tmp_path) == []


def test_what_nobody_maps_is_cleared_away_and_with_the_payload_its_copy(store: PayloadStore, tmp_path: Path) -> None:
    first, second = add(store, b"first", "first"), add(store, b"second", "second")
    for each in (first, second):
        store.load(each, PAGES)
    assert copies(tmp_path) == sorted([first.digest, second.digest])
    assert store.collect([first.digest])[0] == 1
    assert copies(tmp_path) == [first.digest]
    store.remove(first)
    assert copies(tmp_path) == []


def test_without_such_pages_it_is_said_what_would_help(store: PayloadStore) -> None:
    payload = add(store, b"tools")
    with pytest.raises(HostError, match="mount -t hugetlbfs -o pagesize=1048576K"):
        store.load(payload, 1 << 30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system that is full")
def test_with_too_few_pages_nothing_is_left_and_their_number_is_told(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with small_disk("tmpfs", tmp_path / "disk") as disk:
        store = PayloadStore(tmp_path / "store", lambda: {64 * MIB: disk.path})
        payload = add(store, b"tools")
        with pytest.raises(HostError, match="1 huge pages of 65536 KiB are wanted for it, and not so many are free"):
            store.load(payload, 64 * MIB)
        assert list(disk.path.glob("*/*/*/*")) == []


def test_mounts_are_found_by_the_size_of_their_pages(tmp_path: Path) -> None:
    table, place = tmp_path / "mounts", tmp_path / "huge pages"
    place.mkdir()
    spelled = str(place).replace(" ", "\\040")
    table.write_text(f"proc /proc proc rw 0 0\nnone {spelled} hugetlbfs rw,pagesize=2M 0 0\n")
    assert mounted(table) == {os.statvfs(place).f_bsize: place}
    table.write_text("proc /proc proc rw 0 0\n")
    assert mounted(table) == {}

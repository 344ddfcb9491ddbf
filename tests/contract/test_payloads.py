"""The Payloads port: the fake and the real store agree; and what only files can get wrong."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from orchestrator.core.payloads import Payload
from orchestrator.errors import FailedError, HostError, OrchestratorError, RefusedError, UsageError
from orchestrator.payload_ports import NewPayload, Payloads
from orchestrator.payloads.service import ServicePayloads
from orchestrator.payloads.store import PayloadStore, is_unchanged
from tests.fakes.host import FakeHost
from tests.fakes.payloads import FakePayloads

QUOTA = 10_000


class Side(Protocol):
    """A store, and ways to have something to add, and to do to its files what nobody should."""

    payloads: Payloads

    def source(self, name: str, content: bytes) -> str: ...

    def spoil(self, payload: Payload) -> None: ...


@dataclass
class FakeSide:
    fake: FakePayloads = field(default_factory=lambda: FakePayloads(FakeHost()))

    def __post_init__(self) -> None:
        self.payloads: Payloads = self.fake

    def source(self, name: str, content: bytes) -> str:
        self.fake.sources[f"/{name}"] = content
        return f"/{name}"

    def spoil(self, payload: Payload) -> None:
        self.fake.content = {
            place: b"spoilt" if place[1] == payload.digest else content for place, content in self.fake.content.items()
        }


class RealSide:
    """Files below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = PayloadStore(path / "store")
        command = [sys.executable, "-P", "-m", "orchestrator.payloads", str(self.store.root)]
        self.payloads: Payloads = ServicePayloads(self.store, command, is_unchanged)

    def source(self, name: str, content: bytes) -> str:
        (self.path / name).write_bytes(content)
        return str(self.path / name)

    def spoil(self, payload: Payload) -> None:
        """Flip one bit, and put the times back as far as anybody can."""
        path = self.store.path(payload)
        status = path.stat()
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        content[payload.size // 2] ^= 1
        path.write_bytes(content)
        path.chmod(0o400)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    return FakeSide() if request.param == "fake" else RealSide(tmp_path)


@pytest.fixture
def real(tmp_path: Path) -> RealSide:
    return RealSide(tmp_path)


def add(
    side: Side, content: bytes = b"tools", *, name: str = "tools", owner: str = "alice", public: bool = False
) -> Payload:
    path = side.source(f"source-{hashlib.sha256(content).hexdigest()[:8]}", content)
    wanted = NewPayload(path=path, user=None, owner=owner, name=name, public=public, quota=QUOTA)
    return asyncio.run(side.payloads.add(wanted))


def test_what_was_added_is_found_checked_and_mapped(side: Side) -> None:
    added = add(side)
    assert (added.digest, added.size, added.public) == (hashlib.sha256(b"tools").hexdigest(), 5, False)
    assert asyncio.run(side.payloads.catalogue()).payloads == (added,)
    asyncio.run(side.payloads.verify(added))
    mapped = asyncio.run(side.payloads.check("alice", added.digest))
    assert (mapped.digest, mapped.length) == (added.digest, 4096)
    assert side.payloads.is_unchanged(mapped)


def test_adding_the_same_again_changes_only_who_may_use_it(side: Side) -> None:
    first = add(side)
    again = add(side, public=True)
    assert (again.added_at, again.public) == (first.added_at, True)
    assert asyncio.run(side.payloads.catalogue()).payloads == (again,)
    asyncio.run(side.payloads.check("bob", first.digest))


def test_a_quota_and_a_name_that_is_taken_refuse_and_leave_all_as_it_was(side: Side) -> None:
    added = add(side, b"x" * 6000)
    for content, name in ((b"y" * 6000, "more"), (b"other", "tools")):
        with pytest.raises(RefusedError):
            add(side, content, name=name)
    assert asyncio.run(side.payloads.catalogue()).payloads == (added,)


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 64, ".x", "a b"])
def test_names_that_are_none_are_refused(side: Side, name: str) -> None:
    with pytest.raises(UsageError, match="no payload's name"):
        add(side, name=name)


def test_an_empty_file_and_one_that_is_not_there_are_no_payloads(side: Side) -> None:
    with pytest.raises(UsageError):
        add(side, b"")
    wanted = NewPayload(path="/nowhere", user=None, owner="alice", name="x", public=False, quota=QUOTA)
    with pytest.raises(UsageError):
        asyncio.run(side.payloads.add(wanted))
    assert asyncio.run(side.payloads.catalogue()).payloads == ()


def test_what_is_private_can_be_mapped_by_its_owner_alone(side: Side) -> None:
    added = add(side)
    with pytest.raises(UsageError, match="you have no such payload"):
        asyncio.run(side.payloads.check("bob", added.digest))


def test_what_one_owner_removes_another_keeps(side: Side) -> None:
    public, private = add(side, public=True), add(side, owner="bob")
    asyncio.run(side.payloads.remove(public))
    asyncio.run(side.payloads.remove(public))
    assert asyncio.run(side.payloads.catalogue()).payloads == (private,)
    asyncio.run(side.payloads.check("bob", private.digest))
    asyncio.run(side.payloads.remove(private))
    with pytest.raises(UsageError):
        asyncio.run(side.payloads.check("bob", private.digest))


def test_a_change_is_noticed_also_of_what_was_found_right_before(side: Side) -> None:
    added = add(side)
    mapped = asyncio.run(side.payloads.check("alice", added.digest))
    side.spoil(added)
    assert not side.payloads.is_unchanged(mapped)
    with pytest.raises(FailedError, match="its file is not what was added"):
        asyncio.run(side.payloads.check("alice", added.digest))
    with pytest.raises(FailedError, match="its file is not what was added"):
        asyncio.run(side.payloads.verify(added))


def test_adding_it_anew_mends_what_was_spoilt(side: Side) -> None:
    side.spoil(add(side))
    asyncio.run(side.payloads.verify(add(side)))


# What only files can get wrong.


def _truncate(path: Path) -> None:
    os.truncate(path, 100)


def _cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2)


def _replace(path: Path) -> None:
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(bytes(size))


def _link_away(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def _write_behind(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 1)
        file.write(b"x")


def _make_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


WRONGS = [_truncate, _cut_to_nothing, _grow, _replace, _link_away, _write_behind, _make_a_directory, Path.unlink]


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.__name__.strip("_"))
def test_whatever_is_done_to_a_file_is_noticed(real: RealSide, wrong: Callable[[Path], None]) -> None:
    added = add(real)
    mapped = asyncio.run(real.payloads.check("alice", added.digest))
    wrong(real.store.path(added))
    assert not real.payloads.is_unchanged(mapped)
    with pytest.raises(FailedError, match="alice/tools: its file is not what was added: "):
        asyncio.run(real.payloads.check("alice", added.digest))


def test_files_are_nobody_elses(real: RealSide) -> None:
    path = real.store.path(add(real, b"x" * 5000))
    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.stat().st_size == 8192
    assert all(each.stat().st_mode & 0o077 == 0 for each in real.store.root.rglob("*"))


def test_the_file_that_was_added_may_be_written_to_afterwards(real: RealSide) -> None:
    source = Path(real.source("image", b"first"))
    with source.open("r+b") as writer:
        wanted = NewPayload(path=str(source), user=None, owner="alice", name="image", public=False, quota=QUOTA)
        added = asyncio.run(real.payloads.add(wanted))
        writer.write(b"later")
    asyncio.run(real.payloads.verify(added))
    assert real.store.path(added).stat().st_nlink == 1


def test_equal_contents_are_one_file_unless_they_are_private_to_several(real: RealSide) -> None:
    def files() -> int:
        return len(list((real.store.root / "blobs").glob("*/*")))

    add(real), add(real, name="again"), add(real, owner="bob")
    assert files() == 2
    public = add(real, owner="carol", public=True)
    assert files() == 1
    asyncio.run(real.payloads.remove(public))
    assert files() == 2
    assert len({each.stat().st_ino for each in (real.store.root / "blobs").glob("*/*")}) == 2


def test_what_was_found_right_is_not_read_again_and_what_could_change_is(real: RealSide) -> None:
    added = add(real)
    path = real.store.path(added)
    path.chmod(0o400)
    assert not real.store.check(added).settled  # it was changed a moment ago
    status = path.stat()
    while True:
        checked = real.store.check(added)
        if checked.settled:
            break
    assert checked.mapped.stamp[4] == status.st_ctime_ns
    path.chmod(0o600)
    with path.open("r+b"):
        asyncio.run(asyncio.sleep(0.05))
        assert not real.store.check(added).settled


def test_nobody_can_open_it_for_writing_while_it_is_read(real: RealSide) -> None:
    path = real.store.path(add(real))
    path.chmod(0o600)
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETSIG, 23)  # SIGURG, which is ignored
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_RDWR | os.O_NONBLOCK)
    finally:
        os.close(handle)


def test_what_a_killed_add_leaves_is_collected_and_what_is_being_added_is_not(real: RealSide) -> None:
    added = add(real)
    left, going = (real.store.root / "incoming" / name for name in ("left", "going"))
    left.write_bytes(b"x" * 5000)
    (real.store.root / "blobs" / "public" / ("0" * 64)).parent.mkdir(exist_ok=True)
    (real.store.root / "blobs" / "public" / ("0" * 64)).write_bytes(b"orphan")
    with going.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert asyncio.run(real.payloads.collect())[0] == 2
    assert going.exists()
    asyncio.run(real.payloads.verify(added))


def test_an_index_that_is_none_is_said_so(real: RealSide) -> None:
    add(real)
    (real.store.root / "index.json").write_text("[{}]")
    with pytest.raises(HostError, match="is no index of payloads"):
        add(real)


def test_a_process_that_dies_is_a_failure(real: RealSide) -> None:
    payloads = ServicePayloads(real.store, ["true"], is_unchanged)
    with pytest.raises(FailedError, match="without a word"):
        asyncio.run(payloads.collect())


@pytest.fixture
def nobody(tmp_path: Path) -> tuple[int, int]:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    entry = pwd.getpwnam("nobody")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    return entry.pw_uid, entry.pw_gid


def test_a_file_is_opened_with_the_rights_of_who_asks(real: RealSide, nobody: tuple[int, int]) -> None:
    def outcome(path: Path, user: tuple[int, int]) -> str:
        wanted = NewPayload(path=str(path), user=user, owner="nobody", name="x", public=False, quota=QUOTA)
        try:
            return asyncio.run(real.payloads.add(wanted)).name
        except OrchestratorError as error:
            return str(error)

    secret, own = real.path / "secret", real.path / "own"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    own.write_bytes(b"own")
    own.chmod(0o400)
    shutil.chown(own, *nobody)
    assert outcome(secret, nobody) == f"{secret}: cannot be opened: Permission denied"
    assert outcome(own, nobody) == "x"


@pytest.mark.parametrize("kind", ["btrfs"])
def test_a_file_system_that_can_clone_does_so(tmp_path: Path, kind: str) -> None:
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs root and mkfs.{kind}, which is in no package that the project installs")
    disk, mount = tmp_path / "disk", tmp_path / "mount"
    mount.mkdir()
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", disk], check=True)
    if subprocess.run(["mount", "-o", "loop", disk, mount], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        side = RealSide(mount)
        source = Path(side.source("image", os.urandom(8 << 20)))
        os.sync()
        free = os.statvfs(mount).f_bfree
        wanted = NewPayload(path=str(source), user=None, owner="alice", name="x", public=False, quota=64 << 20)
        added = asyncio.run(side.payloads.add(wanted))
        os.sync()
        assert (free - os.statvfs(mount).f_bfree) * os.statvfs(mount).f_frsize < 4 << 20
        source.write_bytes(b"changed")
        asyncio.run(side.payloads.verify(added))
    finally:
        subprocess.run(["umount", "-l", mount], check=True)

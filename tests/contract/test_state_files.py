"""The StateFiles port: the fake and directories on disk agree; and what only a disk can get wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from orchestrator.errors import FailedError, HostError, RefusedError
from orchestrator.host.state_files import StateDirectories
from orchestrator.state_ports import StateFiles
from tests.contract.small_disk import DISKS, small_disk
from tests.fakes.host import FakeHost
from tests.fakes.states import FakeStates

_T = TypeVar("_T")


class Side(Protocol):
    """States, a second opening of them as by the next process, and files beside them."""

    files: StateFiles

    def next(self) -> StateFiles: ...

    def write(self, path: str, content: bytes) -> None: ...

    def read(self, path: str) -> bytes | None: ...


@dataclass
class FakeSide:
    host: FakeHost = field(default_factory=FakeHost)

    def __post_init__(self) -> None:
        self.files: StateFiles = FakeStates(self.host)

    def next(self) -> StateFiles:
        return FakeStates(self.host)

    def write(self, path: str, content: bytes) -> None:
        self.host.disk[path] = content

    def read(self, path: str) -> bytes | None:
        return self.host.disk.get(path)


@dataclass
class RealSide:
    root: Path

    def __post_init__(self) -> None:
        self.files: StateFiles = StateDirectories(self.root)

    def next(self) -> StateFiles:
        return StateDirectories(self.root)

    def write(self, path: str, content: bytes) -> None:
        Path(path).write_bytes(content)

    def read(self, path: str) -> bytes | None:
        return Path(path).read_bytes() if Path(path).exists() else None


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    return FakeSide() if request.param == "fake" else RealSide(tmp_path)


def run(act: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(act)


def publish(side: Side, name: str = "one", owner: str = "alice", kind: str = "saved", text: str = "{}") -> str:
    async def act() -> str:
        draft = await side.files.begin(owner, kind, name)
        side.write(f"{draft.directory}/state", b"content")
        return await side.files.publish(draft, text)

    return run(act())


def test_what_is_published_is_offered_with_its_files_also_to_the_next_process(side: Side) -> None:
    path = publish(side, text="manifest")
    for files in (side.files, side.next()):
        (record,) = run(files.records("saved"))
        assert (record.directory, record.manifest) == (path, "manifest")
    assert side.read(f"{path}/state") == b"content"


def test_kinds_and_owners_are_kept_apart(side: Side) -> None:
    paths = [publish(side, *which) for which in (("one", "alice"), ("one", "bob"), ("one", "bob", "template"))]
    assert len(set(paths)) == 3
    assert [record.directory for record in run(side.files.records("saved"))] == paths[:2]
    assert [record.directory for record in run(side.files.records("saved", "bob"))] == paths[1:2]
    assert [record.directory for record in run(side.files.records("template", "bob"))] == paths[2:]
    assert run(side.files.records("snapshot")) == []
    assert run(side.files.records("saved", "carol")) == []


def test_nothing_is_offered_before_it_is_published(side: Side) -> None:
    async def act() -> None:
        draft = await side.files.begin("alice", "saved", "one")
        side.write(f"{draft.directory}/state", b"half")
        assert await side.files.records("saved") == []
        await side.files.abandon(draft)
        assert side.read(f"{draft.directory}/state") is None

    run(act())


def test_where_a_window_was_is_forgotten_and_nothing_else(side: Side) -> None:
    name, rest = b"0000:00:02.0/orchestrator-window", bytes(range(256)) * 400
    state = b"QEVM" + bytes([len(name)]) + name + bytes(8)

    async def act() -> None:
        draft = await side.files.begin("alice", "saved", "one")
        path = f"{draft.directory}/state"
        side.write(path, state + b"\0\0\0\0\xf8\0\0\0" + rest)
        await side.files.forget_window(path)
        assert side.read(path) == state + bytes(8) + rest
        side.write(path, rest)
        with pytest.raises(FailedError):
            await side.files.forget_window(path)
        assert side.read(path) == rest

    run(act())


def test_a_name_that_is_taken_is_refused_at_the_beginning_and_at_the_end(side: Side) -> None:
    async def act() -> None:
        first = await side.files.begin("alice", "saved", "one")
        second = await side.files.begin("alice", "saved", "one")
        await side.files.publish(first, "first")
        with pytest.raises(RefusedError, match="one: there is a saved guest of this name already"):
            await side.files.publish(second, "second")
        await side.files.abandon(second)
        with pytest.raises(RefusedError, match="one: there is a saved guest of this name already"):
            await side.files.begin("alice", "saved", "one")
        (record,) = await side.files.records("saved")
        assert record.manifest == "first"

    run(act())


def test_only_what_others_have_left_is_swept(side: Side) -> None:
    async def act() -> None:
        left = await side.files.begin("alice", "saved", "one")
        side.write(f"{left.directory}/state", b"half")
        assert await side.files.sweep() == []
        later = side.next()
        mine = await later.begin("alice", "saved", "one")
        assert await later.sweep() == [left.directory]
        assert side.read(f"{left.directory}/state") is None
        await later.publish(mine, "whole")
        assert len(await later.records("saved")) == 1

    run(act())


def test_what_is_removed_is_gone_and_its_name_is_free(side: Side) -> None:
    path = publish(side)
    run(side.files.remove(path))
    assert run(side.files.records("saved")) == []
    assert run(side.next().sweep()) == []
    with pytest.raises(FailedError, match="cannot be removed"):
        run(side.files.remove(path))
    publish(side)


def test_a_copy_is_like_what_it_was_made_of_and_what_is_dropped_is_gone(side: Side) -> None:
    async def act() -> None:
        draft = await side.files.begin("alice", "saved", "one")
        source, target = f"{draft.directory}/a", f"{draft.directory}/b"
        side.write(source, b"some\0bytes")
        await side.files.copy(source, target)
        assert side.read(target) == b"some\0bytes"
        await side.files.drop(source)
        await side.files.drop(source)
        assert side.read(source) is None
        with pytest.raises(FailedError, match="cannot be copied"):
            await side.files.copy(source, target)

    run(act())


def test_a_state_takes_room(side: Side) -> None:
    assert run(side.files.size(publish(side))) > 0


def test_a_file_that_changes_has_another_mark(tmp_path: Path) -> None:
    files, path = StateDirectories(tmp_path), tmp_path / "kernel"
    assert run(files.marks([str(path)])) == {str(path): None}
    path.write_bytes(b"a")
    before = run(files.marks([str(path)]))
    os.utime(path, ns=(1, 1))
    assert run(files.marks([str(path)])) != before


def test_holes_are_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(1 << 24)
    run(StateDirectories(tmp_path).copy(str(source), str(target)))
    assert target.stat().st_size == 1 << 24
    assert target.stat().st_blocks * 512 < 1 << 20


def test_nobody_else_may_read_what_was_in_a_guests_memory(tmp_path: Path) -> None:
    side = RealSide(tmp_path / "states")
    path = Path(publish(side))
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    side = RealSide(tmp_path / "states")
    path = Path(publish(side, name="../../x", owner="../y")).resolve()
    assert path.is_relative_to((tmp_path / "states").resolve())


@DISKS
def test_a_full_disk_is_the_hosts_fault_and_nothing_is_offered(kind: str, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as disk:
        side = RealSide(disk.path / "states")

        async def act() -> None:
            draft = await side.files.begin("alice", "saved", "one")
            with disk.full(), pytest.raises(HostError, match=r"cannot be written: .*; make room or give access"):
                await side.files.publish(draft, "x" * (1 << 16))
            assert await side.files.records("saved") == []
            await side.files.abandon(draft)

        run(act())

"""The GuestFiles port: the fake and directories on disk agree; and what only directories can get wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from orchestrator.errors import FailedError, UsageError
from orchestrator.host.guest_files import GuestDirectories, unreadable, unusable
from orchestrator.ports import GuestFiles
from tests.fakes.files import FakeFiles
from tests.fakes.host import FakeHost, Faults


class Side(Protocol):
    """Guest files, an image for overlays, and ways to do what a guest does and to see what is there."""

    files: GuestFiles
    image: str

    def prints(self, name: str, text: bytes) -> None: ...

    def names(self, name: str) -> set[str]: ...


@dataclass
class FakeSide:
    host: FakeHost = field(default_factory=lambda: FakeHost(Faults(prepare=["doomed"])))
    image: str = "/image.raw"

    def __post_init__(self) -> None:
        self.files: GuestFiles = FakeFiles(self.host)

    def prints(self, name: str, text: bytes) -> None:
        self.host.prints(name, text)

    def names(self, name: str) -> set[str]:
        return set(self.host.files.get(name, ()))


@dataclass
class RealSide:
    files: GuestFiles
    image: str

    def prints(self, name: str, text: bytes) -> None:
        with (Path(self.files.directory(name)) / "serial.log").open("ab") as log:
            log.write(text)

    def names(self, name: str) -> set[str]:
        path = Path(self.files.directory(name))
        return {entry.name for entry in path.iterdir()} if path.exists() else set()


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    if request.param == "fake":
        return FakeSide()
    image = tmp_path / "image.raw"
    image.write_bytes(bytes(4096))
    return RealSide(GuestDirectories(tmp_path / "guests"), str(image))


def prepare(side: Side, name: str, overlays: Mapping[str, tuple[str, str]] | None = None) -> None:
    asyncio.run(side.files.prepare(name, overlays or {}, {}, "root", {}))


def test_each_guest_has_a_directory_of_its_own(side: Side) -> None:
    assert side.files.directory("one") == side.files.directory("one")
    assert side.files.directory("one") != side.files.directory("two")
    assert side.names("one") == set()


def test_a_guest_that_never_ran_has_no_log(side: Side) -> None:
    assert side.files.serial_log("one").text == b""
    assert side.files.serial_log("one", 10).text == b""


def test_the_log_is_read_on_from_any_byte(side: Side) -> None:
    prepare(side, "one")
    assert side.files.serial_log("one").text == b""
    side.prints("one", b"heart")
    side.prints("one", b"beat\xff\n")
    assert side.files.serial_log("one").text == b"heartbeat\xff\n"
    assert side.files.serial_log("one", 5).text == b"beat\xff\n"
    assert side.files.serial_log("one", 11).text == b""
    assert side.files.serial_log("one", 99) == (b"", 99)
    assert side.files.serial_log("one", 5).end == 11
    assert side.files.serial_log("one", 5, 4) == (b"beat", 9)
    assert side.files.serial_log("two").text == b""


def test_overlays_are_made_and_discarded_and_the_log_stays(side: Side) -> None:
    overlay = f"{side.files.directory('one')}/vda.overlay.qcow2"
    prepare(side, "one", {overlay: (side.image, "raw")})
    side.prints("one", b"last words")
    assert side.names("one") == {"vda.overlay.qcow2", "serial.log"}
    side.files.discard("one")
    assert side.names("one") == {"serial.log"}
    assert side.files.serial_log("one").text == b"last words"
    side.files.discard("one")
    assert side.names("one") == {"serial.log"}


def test_a_new_start_has_no_old_log(side: Side) -> None:
    prepare(side, "one")
    side.prints("one", b"old")
    prepare(side, "one")
    assert side.names("one") == set()
    assert side.files.serial_log("one").text == b""


def test_discarding_what_never_was_is_nothing(side: Side) -> None:
    side.files.discard("one")
    assert side.names("one") == set()


def test_an_overlay_that_cannot_be_made_is_a_failure(side: Side) -> None:
    overlay = f"{side.files.directory('doomed')}/vda.overlay.qcow2"
    with pytest.raises(FailedError, match="no overlay could be made"):
        prepare(side, "doomed", {overlay: ("/nowhere/image.raw", "raw")})
    side.files.discard("doomed")
    assert side.names("doomed") == set()


def test_only_its_owner_may_enter(tmp_path: Path) -> None:
    files = GuestDirectories(tmp_path)
    asyncio.run(files.prepare("one", {}, {}, "root", {}))
    assert Path(files.directory("one")).stat().st_mode & 0o777 == 0o700


def test_an_overlay_is_a_thin_layer_above_its_image(tmp_path: Path) -> None:
    image, files = tmp_path / "a, b.raw", GuestDirectories(tmp_path)
    image.write_bytes(bytes(1 << 20))
    overlay = f"{files.directory('one')}/vda.overlay.qcow2"
    asyncio.run(files.prepare("one", {overlay: (str(image), "raw")}, {}, "root", {}))
    told = subprocess.run(["qemu-img", "info", overlay], capture_output=True, text=True, check=True).stdout
    assert f"backing file: {image}" in told
    assert "backing file format: raw" in told
    assert image.read_bytes() == bytes(1 << 20)


def test_a_directory_too_deep_for_a_socket_is_refused_before_anything_starts(tmp_path: Path) -> None:
    root = tmp_path / ("d" * 90)
    with pytest.raises(UsageError, match=r"longer than a Unix socket's path may be \(107 bytes\).*RUNTIME_DIR"):
        GuestDirectories(root).directory("one")
    exact = "n" * (107 - len(os.fsencode(f"{tmp_path}//monitor.sock")))
    assert GuestDirectories(tmp_path).directory(exact).endswith(exact)
    with pytest.raises(UsageError):
        GuestDirectories(tmp_path).directory(f"{exact}n")


def test_a_directory_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "guests").write_text("in the way")
    with pytest.raises(FailedError, match=r"guests/one: the guest's run directory cannot be made: Not a directory"):
        asyncio.run(GuestDirectories(tmp_path / "guests").prepare("one", {}, {}, "root", {}))


def test_what_can_be_given_to_a_guest(tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to("payload")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    assert unreadable(str(file)) is None
    assert unreadable(str(link)) is None
    assert unreadable(str(tmp_path / "none")) == f"{tmp_path}/none does not exist"
    assert unreadable(str(tmp_path)) == f"{tmp_path} is neither a file nor a block device"
    assert unreadable("/dev/null") == "/dev/null is neither a file nor a block device"
    assert unreadable(str(dangling)) == f"{dangling} is neither a file nor a block device"


def test_what_was_taken_out_of_a_log_is_passed_over(tmp_path: Path) -> None:
    files = GuestDirectories(tmp_path)
    asyncio.run(files.prepare("one", {}, {}, "root", {}))
    log = Path(files.directory("one")) / "serial.log"
    with log.open("wb") as file:
        file.seek(1 << 20)  # as a hole that was punched reads: nothing is allocated there
        file.write(b"last words")
    assert files.serial_log("one") == (b"last words", (1 << 20) + 10)
    assert files.serial_log("one", 1 << 20).text == b"last words"


def test_what_is_no_folder_is_not_shared(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert unusable(str(tmp_path), writable=True) is None
    assert unusable(str(file), writable=False) == f"{file} is not a folder"
    assert unusable(str(tmp_path / "none"), writable=False) == f"{tmp_path}/none does not exist"
    if os.geteuid() != 0:  # who may do everything anyway
        tmp_path.chmod(0o500)
        assert unusable(str(tmp_path), writable=True) == f"{tmp_path} is a folder in which this user cannot make files"
        tmp_path.chmod(0o700)

"""Files opened with a user's rights, and held fast in a guest's run directory: real users' numbers, real mounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.core.files import GuestFile
from orchestrator.core.model import DiskFormat
from orchestrator.errors import FailedError, HostError
from orchestrator.host.guest_files import GuestDirectories
from orchestrator.host.opening import UserFiles

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users, and mount")

ALICE, BOB = 4_000_001, 4_000_002
SECRET = b"the secret of another\n"


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody can enter, with alice's in it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "alice").mkdir()
        os.chown(path / "alice", ALICE, ALICE)
        yield path
        unmount_all(path)


def unmount_all(path: Path) -> None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{path}/"):
            subprocess.run(["umount", line.split()[1]], check=True)


def write(path: Path, text: bytes, owner: int, mode: int = 0o600) -> Path:
    path.write_bytes(text)
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


def kernel(path: object) -> GuestFile:
    return GuestFile("boot.kernel", str(path))


def troubles(owner: int | str, *files: GuestFile, limit: float = 30.0) -> list[str]:
    async def story() -> list[str]:
        opener = UserFiles(limit=limit)
        with contextlib.closing(opener):
            async with opener.opened(str(owner), files) as opened:
                assert [each.file for each in opened] == list(files)
                assert all((each.descriptor is None) == bool(each.trouble) for each in opened)
                return [each.trouble for each in opened]

    return asyncio.run(story())


def test_a_user_opens_what_he_may_and_nothing_else(home: Path) -> None:
    mine = write(home / "alice" / "mine", b"mine", ALICE)
    theirs = write(home / "theirs", SECRET, BOB)
    everybodys = write(home / "everybodys", b"all", BOB, 0o644)
    (home / "alice" / "link").symlink_to(theirs)
    (home / "alice" / "good link").symlink_to(everybodys)
    tried = [mine, theirs, everybodys, home / "alice" / "link", home / "alice" / "good link", "/etc/shadow"]
    tried += [home / "alice" / ".." / "theirs", "/etc/../etc/shadow", home / "none"]
    denied = "cannot be read by 4000001: Permission denied"
    assert troubles(ALICE, *map(kernel, tried)) == [
        *("", f"{theirs} {denied}", "", f"{home}/alice/link {denied}", "", f"/etc/shadow {denied}"),
        *(f"{home}/alice/../theirs {denied}", f"/etc/../etc/shadow {denied}"),
        f"{home}/none cannot be read by 4000001: No such file or directory",
    ]
    assert troubles("root", kernel(theirs), kernel("/etc/shadow")) == ["", ""]


def test_what_is_written_to_is_opened_for_that(home: Path) -> None:
    readable = write(home / "readable", bytes(512), BOB, 0o644)
    disk = GuestFile("disk[0].path", str(readable), writable=True, format=DiskFormat.RAW)
    (told,) = troubles(ALICE, disk)
    assert told == (
        f"{readable} cannot be opened for writing by 4000001: Permission denied; "
        "if it is only to be read, say readonly = true or overlay = true"
    )
    assert troubles(BOB, disk) == [""]


def test_what_is_no_image_is_not_taken_and_nobody_waits_for_it(home: Path) -> None:
    pipe = home / "alice" / "pipe"
    os.mkfifo(pipe, 0o666)
    os.chown(pipe, ALICE, ALICE)
    told = troubles(ALICE, *map(kernel, [pipe, "/dev/null", home / "alice", "/proc/self/environ", "/sys/kernel/notes"]))
    no_file, kernels_own = (
        "is neither a file nor a block device",
        "is the kernel's own, and neither an image nor a folder of files",
    )
    assert told[:3] == [f"{pipe} {no_file}", f"/dev/null {no_file}", f"{home}/alice {no_file}"]
    assert told[4] == f"/sys/kernel/notes {kernels_own}"
    assert told[3]


def test_folders_are_looked_at_as_their_user_would(home: Path) -> None:
    alices, bobs, file = home / "alice", home / "bob", write(home / "alice" / "file", b"", ALICE, 0o600)
    bobs.mkdir(mode=0o755)
    os.chown(bobs, BOB, BOB)
    link = home / "link"
    link.symlink_to(alices)

    def folder(path: Path | str, *, writable: bool = False) -> GuestFile:
        return GuestFile("share[0].path", str(path), writable, folder=True)

    fine = [folder(alices, writable=True), folder(link, writable=True), folder(bobs)]
    assert troubles(ALICE, *fine) == [""] * 3
    told = troubles(ALICE, folder(bobs, writable=True), folder(file), folder("/proc/self"), folder(home / "none"))
    assert told == [
        f"{bobs} is a folder in which this user cannot make files",
        f"{file} is not a folder",
        "/proc/self is the kernel's own, and neither an image nor a folder of files",
        f"{home}/none cannot be read by 4000001: No such file or directory",
    ]


def test_images_that_lead_to_other_files_are_not_taken(home: Path) -> None:
    image, based, split = (home / name for name in ("plain", "based", "split"))
    make = ["qemu-img", "create", "-q", "-f", "qcow2"]
    for command in (
        [*make, str(image), "1M"],
        [*make, "-u", "-F", "raw", "-b", "/etc/shadow", str(based), "1M"],
        [*make, "-o", f"data_file={home}/data", str(split), "1M"],
    ):
        subprocess.run(command, check=True)
    files = [GuestFile("disk[0].path", str(path), format=DiskFormat.QCOW2) for path in (image, based, split)]
    told = troubles(ALICE, *files)
    assert told[0] == ""
    assert told[1].startswith(f"{based} is based on another image, which would be opened too")
    assert told[2].startswith(f"{split} keeps its data in another file, which would be opened too")


def test_who_is_no_user_of_this_host_opens_nothing() -> None:
    with pytest.raises(HostError, match="nosuchuser: this host has no such user"):
        troubles("nosuchuser", kernel("/etc/hostname"))


def test_the_helper_may_be_ended_and_is_started_again() -> None:
    async def story() -> None:
        files = UserFiles()
        for _ in range(2):
            async with files.opened(str(ALICE), [kernel("/etc/passwd")] * 3) as opened:
                assert [each.trouble for each in opened] == [""] * 3
            assert files._helper is not None
            files._helper.shutdown(socket.SHUT_RDWR)
        files.close()

    asyncio.run(story())


async def prepared(root: Path, files: Sequence[GuestFile], overlays: bool = False) -> dict[str, Path]:
    opener = UserFiles()
    directories = GuestDirectories(root, opener=opener)
    directory = directories.directory("one")
    pins = {f"{directory}/{file.pin}": file for file in files}
    above = {f"{directory}/above.qcow2": (path, str(file.format)) for path, file in pins.items()} if overlays else {}
    with contextlib.closing(opener):
        await directories.prepare("one", above, pins, str(ALICE), {})
    return {file.key: Path(path) for path, file in pins.items()}


def test_what_was_opened_stays_whatever_its_name_comes_to_mean(home: Path) -> None:
    root, mine = home / "guests", write(home / "alice" / "mine", b"mine", ALICE)
    disk = write(home / "alice" / "disk", bytes(1024), ALICE)
    secret = write(home / "secret", SECRET, BOB)
    files = [kernel(mine), GuestFile("disk[0].path", str(disk), writable=True, format=DiskFormat.RAW)]
    pins = asyncio.run(prepared(root, files))
    mine.unlink()
    mine.symlink_to(secret)
    assert pins["boot.kernel"].read_bytes() == b"mine"
    with pytest.raises(OSError, match="Read-only file system"):
        pins["boot.kernel"].open("r+b")
    with pins["disk[0].path"].open("r+b") as file:
        file.write(b"new")
    assert disk.read_bytes()[:4] == b"new\0"
    files_of = GuestDirectories(root)  # another process, which knows nothing of the first
    with pytest.raises(FailedError, match=r"one: .*/mine cannot be read by 4000001: Permission denied"):
        asyncio.run(prepared(root, files[:1]))
    files_of.discard("one")
    assert list((root / "one").iterdir()) == []
    assert [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(root) in line] == []
    assert disk.read_bytes()[:4] == b"new\0"


def test_an_overlay_is_made_above_what_was_opened_which_is_not_opened_for_it(home: Path) -> None:
    image = home / "alice" / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "3M"], check=True)
    image.chmod(0o644)
    disk = GuestFile("disk[0].path", str(image), format=DiskFormat.QCOW2)
    pins = asyncio.run(prepared(home / "guests", [disk], overlays=True))
    told = subprocess.run(
        ["qemu-img", "info", str(home / "guests/one/above.qcow2")], capture_output=True, text=True, check=True
    ).stdout
    assert f"backing file: {pins['disk[0].path']}" in told
    assert "virtual size: 3 MiB" in told


def test_a_file_that_is_swapped_all_the_time_is_never_anothers(home: Path) -> None:
    name, secret = home / "alice" / "name", write(home / "secret", SECRET, BOB)
    mine = write(home / "alice" / "mine", b"mine", ALICE)
    script = 'while :; do ln -sf "$1" "$3.x"; mv -f "$3.x" "$3"; ln -sf "$2" "$3.x"; mv -f "$3.x" "$3"; done'
    name.symlink_to(mine)
    swapping = subprocess.Popen(["sh", "-c", script, "swap", str(secret), str(mine), str(name)])
    seen = []
    try:
        for _ in range(15):
            try:
                pins = asyncio.run(prepared(home / "guests", [kernel(name)]))
            except FailedError:
                continue
            seen.append(pins["boot.kernel"].read_bytes())
    finally:
        swapping.kill()
        swapping.wait()
    assert set(seen) <= {b"mine"}


class Crowded(UserFiles):
    """Counts the openings that go on at the same time; those for alice's number wait until `open_up` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open_up = asyncio.Event()
        self.now = self.most = 0

    async def _answer(self, order: bytes, descriptors: array[int]) -> bytes:
        if str(ALICE) in order.decode():
            self.now += 1
            self.most = max(self.most, self.now)
            await self.open_up.wait()
            self.now -= 1
        return await super()._answer(order, descriptors)


def test_who_has_many_files_opened_at_once_keeps_no_other_waiting(home: Path) -> None:
    mine, other = write(home / "alice" / "mine", b"mine", ALICE), write(home / "bobs", b"bobs", BOB)
    opener = Crowded()

    async def opened(owner: int, path: Path) -> str:
        async with opener.opened(str(owner), [kernel(path)]) as (found,):
            return found.trouble

    async def story() -> None:
        many = [asyncio.create_task(opened(ALICE, mine)) for _ in range(12)]
        assert await opened(BOB, other) == ""
        assert not any(task.done() for task in many)
        opener.open_up.set()
        assert await asyncio.gather(*many) == [""] * 12

    with contextlib.closing(opener):
        asyncio.run(story())
    assert opener.most == 4

"""Serial logs: copied without a gap, freed behind a live writer, never more than their limit, whoever is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.chores.serial import Follower, Ring
from tests.contract.small_disk import DISKS, small_disk
from tests.functional.chores_side import chores, until

LIMIT = 40_000
PAGE = 4096


@pytest.fixture
def source() -> Iterator[Path]:
    """Return the path of a log on a real tmpfs, as a guest's is."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory) / "serial.log"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "web.log"


def prints(source: Path, data: bytes) -> None:
    with source.open("ab") as file:
        file.write(data)


def text(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def content(kept: Path) -> bytes:
    """Return what the ring holds, the older file first."""
    older = kept.with_name(f"{kept.name}.1")
    return (older.read_bytes() if older.exists() else b"") + kept.read_bytes()


def in_memory(source: Path) -> int:
    return source.stat().st_blocks * 512


def test_what_is_printed_is_kept_and_the_rest_when_it_is_polled_again(source: Path, kept: Path) -> None:
    follower = Follower(source, kept, LIMIT)
    assert not follower.poll()  # it is not there yet
    prints(source, b"heart")
    follower.poll()
    prints(source, b"beat\xff\0\n")
    follower.poll()
    assert content(kept) == b"heartbeat\xff\0\n"
    assert (follower.copied, follower.lost) == (12, 0)
    assert kept.stat().st_mode & 0o777 == 0o600
    follower.close()


@pytest.mark.parametrize("seed", range(5))
def test_no_byte_is_lost_or_doubled_whenever_it_is_killed(source: Path, kept: Path, seed: int) -> None:
    chance, printed = random.Random(seed), b""
    follower, copied = Follower(source, kept, LIMIT), 0
    for step in range(150):
        fresh = text(chance.choice([0, 1, 100, 5000, LIMIT // 2, LIMIT]), step)
        prints(source, fresh)
        printed += fresh
        assert follower.poll() is (len(fresh) > LIMIT // 2)
        assert follower.lost == 0
        assert min(len(printed), LIMIT // 2) <= len(content(kept)) <= LIMIT
        assert printed.endswith(content(kept))
        assert in_memory(source) <= LIMIT + 2 * PAGE
        if chance.random() < 0.3:
            copied += follower.copied
            follower.close()  # as a kill would
            follower = Follower(source, kept, LIMIT)
    assert copied + follower.copied == len(printed)
    assert source.stat().st_size == len(printed)
    tail = source.read_bytes()[-LIMIT // 4 :]
    assert printed.endswith(tail)  # who reads the end of it there is not disturbed
    follower.close()


class KilledBeforeMarking(Follower):
    """Dies after it has begun a new file, before it could note that."""

    def _mark(self, descriptor: int, ring: Ring, at: int) -> None:
        if ring.size == 0 and at:
            raise KeyboardInterrupt
        super()._mark(descriptor, ring, at)


def test_a_kill_between_a_new_file_and_its_mark_loses_and_doubles_nothing(source: Path, kept: Path) -> None:
    printed = text(LIMIT - 100)
    prints(source, printed)
    doomed = KilledBeforeMarking(source, kept, LIMIT)
    with pytest.raises(KeyboardInterrupt):
        doomed.poll()
    doomed.close()
    follower = Follower(source, kept, LIMIT)
    follower.poll()
    follower.close()
    assert content(kept) == printed


class NeverMarks(Follower):
    """Forgets to note where it was."""

    def _mark(self, descriptor: int, ring: Ring, at: int) -> None:
        pass


def test_the_check_would_notice_a_missing_mark(source: Path, kept: Path) -> None:
    for _ in range(2):
        prints(source, b"once")
        follower = NeverMarks(source, kept, LIMIT)
        follower.poll()
        follower.close()
    assert content(kept) == b"onceonceonce"


def test_more_than_the_limit_at_once_is_counted_and_its_end_is_kept(source: Path, kept: Path) -> None:
    printed = text(5 * LIMIT)
    prints(source, printed)
    follower = Follower(source, kept, LIMIT)
    assert follower.poll()
    assert (follower.copied, follower.lost) == (LIMIT, 4 * LIMIT)
    assert content(kept) == printed[-LIMIT:]
    assert in_memory(source) <= LIMIT // 2 + 2 * PAGE
    follower.close()


def test_a_log_that_is_made_anew_is_followed_and_the_old_one_to_its_end(source: Path, kept: Path) -> None:
    follower = Follower(source, kept, LIMIT)
    prints(source, b"first ")
    follower.poll()
    prints(source, b"last words ")
    source.unlink()
    follower.poll()
    prints(source, b"second ")
    follower.poll()
    with source.open("wb") as file:  # cut, and written anew
        file.write(b"cut")
    follower.poll()
    follower.close()
    assert content(kept) == b"first last words second cut"


def test_what_no_guest_should_have_put_there_is_not_followed(source: Path, kept: Path, tmp_path: Path) -> None:
    secret = source.with_name("secret")
    secret.write_text("secret")
    for plant in (source.symlink_to, source.hardlink_to):
        plant(secret)
        with pytest.raises(OSError, match=r"Too many levels|Invalid argument"):
            Follower(source, kept, 3).poll()
        source.unlink()
    os.mkfifo(source)
    with pytest.raises(OSError, match="Invalid argument"):
        Follower(source, kept, 3).poll()
    assert secret.read_text() == "secret"
    assert list(tmp_path.iterdir()) == []


@DISKS
def test_a_full_disk_costs_the_oldest_and_neither_memory_nor_order(kind: str, source: Path, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as disk:
        kept, printed = disk.path / "web.log", text(1000)
        follower = Follower(source, kept, LIMIT)
        prints(source, printed)
        follower.poll()
        for step in range(20):
            fresh = text(LIMIT // 4, step + 1)
            printed += fresh
            prints(source, fresh)
            with disk.full(), pytest.raises(OSError, match=r"No space left|File too large"):
                follower.poll()
            assert in_memory(source) <= LIMIT + 2 * PAGE
        follower.poll()
        assert follower.lost > LIMIT
        assert follower.copied + follower.lost == len(printed)
        assert printed.endswith(content(kept)[-LIMIT // 2 :])
        follower.close()


WRITER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for block in range(3200):
    os.write(log, b"".join(b"%015d\\n" % (block * 1024 + line) for line in range(1024)))
"""


def length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it is being set aside
        return 0


def test_the_limit_holds_while_a_guest_prints_fifty_megabytes(source: Path, tmp_path: Path) -> None:
    limit = 1 << 20
    kept = tmp_path / "serial" / "web.log"
    with chores(tmp_path) as process:
        process.client.watch_serial("web", str(source), limit)
        most = 0
        with subprocess.Popen([sys.executable, "-S", "-c", WRITER, str(source)]) as writer:
            while writer.poll() is None:
                process.client.health()
                most = max(most, *map(length, (kept, kept.with_name("web.log.1"))))
        assert writer.returncode == 0
        until(lambda: process.client.health().serial_bytes + process.client.health().serial_lost == 3200 * 16384)
        until(lambda: in_memory(source) <= limit)
        process.client.forget_serial("web")
        assert process.stop()
    assert source.stat().st_size == 3200 * 16384
    assert 0 < most <= limit // 2
    lines = content(kept).split(b"\n")[1:-1]
    assert limit // 2 <= len(content(kept)) <= limit
    assert int(lines[-1]) == 3200 * 1024 - 1
    assert all(len(line) == 15 for line in lines)


def test_what_is_lost_is_counted_for_each_guest(source: Path, tmp_path: Path) -> None:
    other = source.with_name("other.log")
    with chores(tmp_path) as process:
        client = process.client
        prints(source, text(5 * LIMIT))
        prints(other, text(LIMIT))
        client.watch_serial("web", str(source), LIMIT)
        client.watch_serial("other", str(other), LIMIT)
        until(lambda: client.health().serial_bytes == 2 * LIMIT)
        until(lambda: client.serial_lost("web") == 4 * LIMIT)
        prints(source, text(3 * LIMIT))
        until(lambda: client.serial_lost("web") == 6 * LIMIT)
        assert client.health().serial_lost == 6 * LIMIT
        assert client.serial_lost("other") == client.serial_lost("never seen") == 0


def test_a_guest_that_is_forgotten_is_followed_to_that_moment_and_no_further(source: Path, tmp_path: Path) -> None:
    with chores(tmp_path, poll=60_000_000_000) as process:
        client = process.client
        client.watch_serial("web", str(source), LIMIT)
        client.log({"number": 1})
        until(lambda: client.health().durable == 1)
        prints(source, b"last words")
        client.forget_serial("web")
        client.forget_serial("web")
        client.forget_serial("never seen")
        until(lambda: client.health().serial_bytes == 10)
        prints(source, b", and more")
        assert process.stop()
    assert content(tmp_path / "serial" / "web.log") == b"last words"


def test_what_was_printed_up_to_the_schedulers_end_is_kept(source: Path, tmp_path: Path) -> None:
    with chores(tmp_path, poll=60_000_000_000) as process:
        process.client.watch_serial("web", str(source), LIMIT)
        process.client.log({"number": 1})
        until(lambda: process.client.health().durable == 1)
        prints(source, b"printed late")
        assert process.stop()
    assert content(tmp_path / "serial" / "web.log") == b"printed late"

"""A serial log of which the chores have taken the beginning out of memory is read as a whole, as far as it is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.chores.serial import Follower
from orchestrator.wiring.serial import ServedSerials, serial_pieces

LIMIT = 64 * 1024


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the serial log of a guest called `beat` is."""
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state" / "logs" / "serial").mkdir(parents=True)
    folder = tmp_path / "run" / "guests" / "beat"
    folder.mkdir(parents=True)
    return folder / "serial.log"


def follow(tmp_path: Path, log: Path, lines: int) -> bytes:
    """Print so many lines, some at a time, with the chores behind; return all that was printed."""
    follower = Follower(log, tmp_path / "state" / "logs" / "serial" / "beat.log", LIMIT)
    printed = b""
    for first in range(0, lines, 100):
        piece = b"".join(b"heartbeat %08d\n" % number for number in range(first, first + 100))
        with log.open("ab") as file:
            file.write(piece)
        printed += piece
        follower.poll()
    follower.close()
    return printed


@pytest.mark.parametrize("lines", [100, 2000, 5000, 20_000])
def test_all_that_is_kept_is_read_and_nothing_twice(tmp_path: Path, log: Path, lines: int) -> None:
    printed = follow(tmp_path, log, lines)
    text = b"".join(serial_pieces("beat", follow=False))
    assert printed.endswith(text)
    assert len(text) >= min(len(printed), LIMIT // 2)
    assert len(text) >= len(log.read_bytes().lstrip(b"\0"))


def test_what_is_no_longer_in_memory_comes_from_where_it_was_kept(tmp_path: Path, log: Path) -> None:
    printed = follow(tmp_path, log, 5000)
    hole = (len(printed) - 4096) // 4096 * 4096
    subprocess.run(["fallocate", "-p", "-o", "0", "-l", str(hole), str(log)], check=True)
    text = b"".join(serial_pieces("beat", follow=False))
    assert printed.endswith(text)
    assert len(text) > LIMIT // 2


def test_small_pieces_make_the_same_whole(tmp_path: Path, log: Path) -> None:
    printed = follow(tmp_path, log, 5000)
    serials, at, pieces = ServedSerials(), 0, []
    while (piece := serials.log("beat", at, 1000)).text:
        assert len(piece.text) <= 1000
        pieces.append(piece.text)
        at = piece.end
    assert at == len(printed)
    assert printed.endswith(b"".join(pieces))
    assert b"".join(pieces) == b"".join(serial_pieces("beat", follow=False))


def test_what_was_kept_of_a_guest_of_this_name_before_is_not_taken_for_this_ones(tmp_path: Path, log: Path) -> None:
    follow(tmp_path, log, 5000)
    log.rename(log.with_name("old"))
    with log.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 20)
        file.write(b"new\n")
    assert b"".join(serial_pieces("beat", follow=False)) == b"new\n"

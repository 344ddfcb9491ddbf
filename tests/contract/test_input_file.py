"""What a user may name as a file: none of it makes the program wait for ever or take all memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.host.input_file import read_input


def told(path: Path, patience: float = 30) -> str:
    with pytest.raises(UsageError) as refused:
        read_input(path, 10, patience)
    return str(refused.value)


@pytest.mark.parametrize(("text", "read"), [(b"", b""), (b"0123456789", b"0123456789"), (b"x" * 99, b"x" * 11)])
def test_a_file_is_read_up_to_a_byte_more_than_allowed(tmp_path: Path, text: bytes, read: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    assert read_input(tmp_path / "file", 10) == read


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(device: str) -> None:
    assert told(Path(device)) == f"{device}: is neither a file nor a pipe"


def test_a_directory_a_loop_of_links_and_nothing_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert told(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    assert told(tmp_path / "loop").endswith("loop: cannot be read: Too many levels of symbolic links")
    assert told(tmp_path / "gone").endswith("gone: cannot be read: No such file or directory")


def test_a_pipe_that_stays_silent_is_waited_for_only_so_long(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert told(tmp_path / "pipe", 0.01).endswith("pipe: nothing came through this pipe within 0.01 s")


def test_a_pipe_is_read_to_its_end_however_slowly_it_comes() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"name")

    def finish() -> None:
        os.write(writer, b" = 1")
        os.close(writer)

    later = threading.Timer(0.05, finish)
    later.start()
    try:
        assert read_input(Path(f"/dev/fd/{reader}"), 10) == b"name = 1"
    finally:
        later.join()
        os.close(reader)

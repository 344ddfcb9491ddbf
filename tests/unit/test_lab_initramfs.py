"""The initramfs: an archive that any cpio reads, with what the first script expects."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lab.initramfs import Entry, cpio


@dataclass
class Read:
    """One file as an independent reading of the format finds it."""

    name: str
    fields: tuple[int, ...]
    data: bytes


def read(archive: bytes) -> list[Read]:
    """Read a newc archive, strictly; the trailer is the last."""
    found: list[Read] = []
    at = 0
    while not found or found[-1].name != "TRAILER!!!":
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = tuple(int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13))
        size, name_size = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = -(-(at + 110 + name_size) // 4) * 4
        found.append(Read(name[:-1].decode(), fields, archive[start : start + size]))
        at = -(-(start + size) // 4) * 4
    assert at == len(archive)
    return found


def test_files_directories_and_devices() -> None:
    archive = cpio(
        [
            Entry("dev", stat.S_IFDIR | 0o755),
            Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry("init", stat.S_IFREG | 0o755, b"#!/bin/sh\n"),
        ]
    )
    directory, console, init, trailer = read(archive)
    assert (directory.name, directory.fields[1], directory.fields[4]) == ("dev", 0o040755, 2)
    assert (console.fields[1], console.fields[9:11]) == (0o020600, (5, 1))
    assert (init.name, init.data, init.fields[1]) == ("init", b"#!/bin/sh\n", 0o100755)
    # Everything belongs to root and is as old as the epoch: the same input gives the same archive.
    assert all(file.fields[2:4] == (0, 0) and file.fields[5] == 0 for file in (directory, console, init))
    assert trailer.data == b""
    assert len({file.fields[0] for file in (directory, console, init)}) == 3


@given(st.lists(st.tuples(st.text("abc/é", min_size=1, max_size=9), st.binary(max_size=9))))
def test_names_and_data_of_any_length_are_aligned(files: list[tuple[str, bytes]]) -> None:
    archive = cpio(Entry(name, stat.S_IFREG | 0o644, data) for name, data in files)
    assert [(file.name, file.data) for file in read(archive)] == [*files, ("TRAILER!!!", b"")]

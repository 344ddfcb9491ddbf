"""initramfs.py BUSYBOX INIT WINDOW ARCHIVE: writes the initramfs of a small Linux guest.

The archive is not compressed, so that no guest has to decompress it, and depends on nothing but the three
files' content.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

DIRECTORY = stat.S_IFDIR | 0o755
PROGRAM = stat.S_IFREG | 0o755
CONSOLE = stat.S_IFCHR | 0o600
CONSOLE_DEVICE = (5, 1)


def entry(number: int, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """Return one file of a "newc" archive (the kernel's buffer-format.rst): header, name and data, each padded."""
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return pad(header + name) + pad(data)


def pad(data: bytes) -> bytes:
    """Return `data` with zeros up to the next multiple of 4 bytes."""
    return data + bytes(-len(data) % 4)


def main() -> None:
    """Do what the head of this file says."""
    busybox, init, window, archive = map(Path, sys.argv[1:])
    archive.write_bytes(
        entry(1, "bin", DIRECTORY)
        + entry(2, "dev", DIRECTORY)
        + entry(3, "proc", DIRECTORY)
        + entry(4, "sys", DIRECTORY)
        + entry(5, "dev/console", CONSOLE, device=CONSOLE_DEVICE)
        + entry(6, "bin/busybox", PROGRAM, busybox.read_bytes())
        + entry(7, "init", PROGRAM, init.read_bytes())
        + entry(8, "bin/window", PROGRAM, window.read_bytes())
        + entry(0, "TRAILER!!!", 0)
    )


if __name__ == "__main__":
    main()

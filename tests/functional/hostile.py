"""Guests that mean harm, as disks to boot from: made out of hostile.S, which tells what each of them does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
DISK = 4 << 20
HARM = ("SPIN", "TRIPLE", "FLOOD", "TOUCH", "TIMER", "FILL", "EVENTS")


def boot_sector(harm: str, directory: Path) -> Path:
    source, made, disk = directory / "hostile.s", directory / "hostile.o", directory / "disk"
    source.write_bytes(
        subprocess.run(["cpp", "-P", f"-D{harm}", str(HERE / "hostile.S")], capture_output=True, check=True).stdout
    )
    linked = directory / "hostile.elf"
    subprocess.run(["as", "--32", "-o", made, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-o", linked, made], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, disk], check=True)
    assert disk.read_bytes()[510:] == b"\x55\xaa"
    os.truncate(disk, DISK)
    return disk

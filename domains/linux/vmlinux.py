"""vmlinux.py BZIMAGE VMLINUX: takes the ELF kernel out of a bzImage that is compressed with LZ4.

QEMU starts the ELF file through its PVH entry point, so that no guest has to decompress its kernel: where
processors are emulated within emulation, that saves seconds of every boot.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path


def payload(image: bytes) -> tuple[bytes, int]:
    """Return the compressed kernel inside a bzImage, and its size when it is decompressed.

    The fields are those of the kernel's Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, "HdrS" at
    0x202, payload_offset and payload_length at 0x248. The payload ends with the size of what it holds.
    """
    if image[0x202:0x206] != b"HdrS":
        raise ValueError("it is not a bzImage")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    end = start + length - 4
    return image[start:end], struct.unpack_from("<I", image, end)[0]


def extract(image: bytes) -> bytes:
    """Return the kernel inside a bzImage."""
    compressed, size = payload(image)
    done = subprocess.run(["lz4", "-dc"], input=compressed, capture_output=True, check=False)
    if done.returncode or len(done.stdout) != size:
        raise ValueError(f"lz4 cannot decompress it: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def main() -> None:
    """Do what the head of this file says."""
    source, target = map(Path, sys.argv[1:])
    try:
        target.write_bytes(extract(source.read_bytes()))
    except ValueError as error:
        sys.exit(f"domains: no kernel in {source}: {error}")


if __name__ == "__main__":
    main()

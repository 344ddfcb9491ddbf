"""Puts the payload's code for all architectures into one image: `image.py OUTPUT OFFSET=CODE...`, see layout.inc."""

from __future__ import annotations

import sys
from pathlib import Path

SIZE, PAGE = 64 << 20, 4096


def main(output: str, *parts: str) -> None:
    """Do what the head of this file says."""
    image = bytearray(SIZE)
    for number in range(SIZE // PAGE):
        image[number * PAGE : number * PAGE + 4] = number.to_bytes(4, "little")
    for part in parts:
        offset, _, code = part.partition("=")
        text = Path(code).read_bytes()
        image[int(offset, 16) : int(offset, 16) + len(text)] = text
    Path(output).write_bytes(image)


main(*sys.argv[1:])

"""What lies inside a distribution's kernel package: the bzImage's payload and the modules' order. Pure."""

from __future__ import annotations

import lzma
import posixpath
import struct
from collections.abc import Iterable
from typing import Final

from orchestrator.errors import FailedError

_MAGICS: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
}
_XZ: Final = b"\xfd7zXZ\x00"
_PT_INTERP: Final = 3
_PAYLOAD_SINCE: Final = 0x208
"""The boot protocol that introduced payload_offset and payload_length (2.08)."""


def extract_vmlinux(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage.

    QEMU starts the ELF through its PVH entry, without the real-mode stub and without decompressing inside
    the guest. The setup header is laid down in the kernel's Documentation/arch/x86/boot.rst: setup_sects at
    0x1f1, "HdrS" at 0x202, version at 0x206, payload_offset and payload_length at 0x248 and 0x24c, counted
    from the start of the protected-mode code.

    Raises `FailedError` if it is no bzImage, or not compressed with xz, as Debian's are.
    """
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        raise FailedError("the lab's kernel is not a bzImage: the setup header is missing")
    if (version := struct.unpack_from("<H", image, 0x206)[0]) < _PAYLOAD_SINCE:
        raise FailedError(f"the lab's kernel speaks boot protocol {version:#x}; its payload is found from 0x208 on")
    # Zero sectors mean four, for the sake of very old loaders.
    start = ((image[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset : start + offset + length]
    if not payload.startswith(_XZ):
        how = next((name for magic, name in _MAGICS.items() if payload.startswith(magic)), "something unknown")
        raise FailedError(
            f"the lab's kernel is compressed with {how}; the lab reads xz, which Debian's generic kernel uses"
        )
    # Not lzma.decompress(): the payload ends with its own size, which is no xz.
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        kernel = decompressor.decompress(payload)
    except lzma.LZMAError as error:
        raise FailedError(f"the lab's kernel is damaged: {error}") from error
    if not decompressor.eof:
        raise FailedError("the lab's kernel is damaged: its payload is cut short")
    if not kernel.startswith(b"\x7fELF"):
        raise FailedError("the lab's kernel holds no ELF image")
    return kernel


def load_order(dependencies: str, builtin: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the module files to insert, each after all it needs; names built into the kernel need none.

    `dependencies` and `builtin` are the texts of modules.dep (``file: what it needs ...``) and
    modules.builtin; files are as written there, relative to the modules' directory. O(lines + result).

    Raises `FailedError` for a name that is in neither.
    """
    needs = {
        file: rest.split()
        for file, separator, rest in (line.partition(":") for line in dependencies.splitlines())
        if separator
    }
    files = {_name(file): file for file in needs}
    inside = {_name(file) for file in builtin.split()}
    order: dict[str, None] = {}

    def add(file: str) -> None:
        if file in order:
            return
        for need in needs.get(file, ()):
            add(need)
        order[file] = None

    for name in map(_name, wanted):
        if name in files:
            add(files[name])
        elif name not in inside:
            raise FailedError(f"the lab's kernel has no module {name!r}; it needs the generic kernel, not a cloud one")
    return tuple(order)


def is_static(program: bytes) -> bool:
    """Tell whether `program` is a 64-bit ELF that names no loader (no PT_INTERP header), so it needs no library."""
    if program[:5] != b"\x7fELF\x02" or len(program) < 0x40:
        return False
    (offset,) = struct.unpack_from("<Q", program, 0x20)
    size, count = struct.unpack_from("<HH", program, 0x36)
    headers = program[offset : offset + size * count]
    return all(struct.unpack_from("<I", headers, at)[0] != _PT_INTERP for at in range(0, len(headers), size))


def _name(file: str) -> str:
    """Return a module's name: no directory, no suffix; the kernel takes - for _ ."""
    return posixpath.basename(file).partition(".ko")[0].replace("-", "_")

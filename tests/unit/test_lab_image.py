"""Reading a kernel package: the payload of a bzImage, the order of modules, static programs."""

from __future__ import annotations

import gzip
import lzma
import struct

import pytest

from orchestrator.errors import FailedError
from orchestrator.lab.image import extract_vmlinux, is_static, load_order

ELF = b"\x7fELF" + bytes(range(256)) * 40


def bzimage(payload: bytes, *, sectors: int = 3, version: int = 0x20F, gap: int = 100) -> bytes:
    """Return a bzImage: `sectors` of set-up code, a `gap` of decompressor, the payload, a tail."""
    image = bytearray(((sectors or 4) + 1) * 512)
    image[0x1F1] = sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, gap, len(payload))
    return bytes(image) + b"\x90" * gap + payload + b"tail"


def packed(kernel: bytes) -> bytes:
    """Compress as the kernel's build does: xz, then the size in four bytes."""
    return lzma.compress(kernel, check=lzma.CHECK_CRC32) + struct.pack("<I", len(kernel))


@pytest.mark.parametrize("sectors", [0, 1, 39])
def test_the_kernel_comes_out_whole(sectors: int) -> None:
    assert extract_vmlinux(bzimage(packed(ELF), sectors=sectors)) == ELF


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "setup header is missing"),
        (b"\0" * 4096, "setup header is missing"),
        (bzimage(packed(ELF))[:0x210], "setup header is missing"),
        (bzimage(packed(ELF), version=0x207), "boot protocol 0x207"),
        (bzimage(gzip.compress(ELF)), "compressed with gzip"),
        (bzimage(b"\x28\xb5\x2f\xfd" + ELF), "compressed with zstd"),
        (bzimage(b"whatever"), "compressed with something unknown"),
        (bzimage(packed(ELF))[:-20], "cut short"),
        (bzimage(packed(ELF)[:40] + b"\xff" * 40 + packed(ELF)[80:]), "is damaged"),
        (bzimage(packed(b"no kernel")), "holds no ELF image"),
    ],
)
def test_what_is_no_usable_kernel(image: bytes, says: str) -> None:
    with pytest.raises(FailedError, match=says):
        extract_vmlinux(image)


DEPENDENCIES = """\
kernel/fs/netfs/netfs.ko:
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko kernel/fs/netfs/netfs.ko
kernel/fs/fscache/fscache.ko: kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/char/odd-name.ko:
"""
BUILTIN = "kernel/fs/overlayfs/overlay.ko\nkernel/drivers/tty/serial/8250/8250-base.ko\n"


def test_a_module_comes_after_all_it_needs_and_only_once() -> None:
    order = load_order(DEPENDENCIES, BUILTIN, ["9pnet_virtio", "9p", "odd_name", "9p"])
    assert sorted(order) == sorted(line.partition(":")[0] for line in DEPENDENCIES.splitlines())
    for line in DEPENDENCIES.splitlines():
        file, _, needs = line.partition(":")
        assert all(order.index(need) < order.index(file) for need in needs.split())


def test_what_is_built_in_needs_no_file() -> None:
    assert load_order(DEPENDENCIES, BUILTIN, ["overlay", "8250_base"]) == ()


def test_a_kernel_that_lacks_a_module() -> None:
    with pytest.raises(FailedError, match="no module 'virtio_pci'"):
        load_order(DEPENDENCIES, BUILTIN, ["virtio_pci"])


def elf(*segments: int) -> bytes:
    """Return the headers of a 64-bit program with segments of these types."""
    head = bytearray(64)
    head[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", head, 0x20, 64)
    struct.pack_into("<HH", head, 0x36, 56, len(segments))
    return bytes(head) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in segments)


def test_a_program_is_static_unless_it_names_a_loader() -> None:
    assert is_static(elf(6, 1, 1))
    assert is_static(elf())
    assert not is_static(elf(6, 3, 1))
    assert not is_static(b"#!/bin/sh\n")
    assert not is_static(elf(1)[:20])

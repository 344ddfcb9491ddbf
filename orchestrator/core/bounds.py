"""How much of the host the kernel lets a guest's QEMU have, whatever becomes of it: memory, threads, disk speed. Pure.

A guest that behaves is far below all of them. They are for a QEMU that has been taken over, or leaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.xml.domain import Accelerator, Domain

_MIB, _GIB = 1 << 20, 1 << 30

_BESIDE = 512 * _MIB
_TRANSLATIONS = _GIB

_WORKERS = 64
"""How many threads QEMU has at most for the disks of its main loop, and of each I/O thread (``thread-pool-max``)."""

_OTHERS = 32
"""Threads for all the rest: the main one, RCU's, I/O threads, those that save a guest's state."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes of memory; threads and processes; bytes a second, read and written each, of any disk (None: no limit)."""

    memory: int
    threads: int
    disk_speed: int | None = None


def bounds(domain: Domain, disk_speed: int | None = None) -> Bounds:
    """Return what a domain's QEMU may have; `disk_speed` is the policy's word."""
    return Bounds(int(most_memory(domain)), _most_threads(domain), disk_speed)


def most_memory(domain: Domain) -> int:
    """Return the most bytes that a domain's QEMU may use of everything.

    libvirt's documentation warns that nobody can tell how much QEMU needs beside the guest's memory: so this is room to
    spare, which a process that grows without end exceeds all the same. TCG keeps its translations in up to 1 GiB. The
    pages of a payload count for the guest that touches them first; overlays lie on a tmpfs, whose pages are memory.
    """
    memory = domain.spec.memory
    beside = _BESIDE + (_TRANSLATIONS if domain.accelerator is Accelerator.TCG else 0)
    mapped = domain.mapped.length if domain.mapped is not None else 0
    overlays = domain.disk if any(disk.overlay for disk in domain.spec.disks) else 0
    return memory + memory // 16 + beside + mapped + overlays


def _most_threads(domain: Domain) -> int:
    spec = domain.spec
    return spec.most_vcpus + _WORKERS * (1 + spec.iothreads) + spec.iothreads + _OTHERS

"""Each payload in domains/ boots in plain QEMU, emulated, and beats: in order, and saying nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Timer

import pytest

DOMAINS = Path(__file__).parents[2] / "domains"
LIMIT = 120.0
"""Seconds after which a guest is given up; on an idle machine the slowest takes three."""

QUIET = "quiet panic=-1"


@dataclass(frozen=True)
class Payload:
    """What boots a payload: the emulator's suffix, its machine and processor, and the files in domains/build."""

    emulator: str
    machine: str
    cpu: str
    boot: tuple[str, ...]

    def command(self) -> list[str]:
        """Return QEMU's command line; `{}` in `boot` stands for the directory of the payloads."""
        return [
            *(f"qemu-system-{self.emulator}", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-accel", "tcg", "-machine", self.machine, "-cpu", self.cpu, "-smp", "2", "-m", "256M"),
            *("-serial", "stdio"),
            *(argument.format(DOMAINS / "build") for argument in self.boot),
        ]


def kernel(name: str) -> tuple[str, ...]:
    return ("-kernel", f"{{}}/{name}")


def disk(interface: str) -> tuple[str, ...]:
    return ("-drive", f"file={{}}/bootsector.img,format=raw,readonly=on,if={interface}")


BARE_METAL = {
    "i386-pc": Payload("i386", "pc", "qemu32", kernel("heartbeat-i386.elf")),
    "i386-q35": Payload("i386", "q35", "qemu32", kernel("heartbeat-i386.elf")),
    "x86_64-pc": Payload("x86_64", "pc", "qemu64", kernel("heartbeat-x86_64.elf")),
    "x86_64-q35": Payload("x86_64", "q35", "qemu64", kernel("heartbeat-x86_64.elf")),
    "bootsector-pc": Payload("i386", "pc", "qemu32", disk("virtio")),
    "bootsector-q35": Payload("x86_64", "q35", "qemu64", disk("virtio")),
    "aarch64": Payload("aarch64", "virt", "cortex-a57", kernel("heartbeat-aarch64.elf")),
    "armv7l": Payload("arm", "virt", "cortex-a15", kernel("heartbeat-armv7l.elf")),
}
LINUX = {
    "x86_64": Payload(
        "x86_64",
        "pc",
        "qemu64",
        (*kernel("linux-x86_64.vmlinux"), "-initrd", "{}/linux-x86_64.cpio", "-append", f"console=ttyS0 {QUIET}"),
    ),
    "aarch64": Payload(
        "aarch64",
        "virt",
        "cortex-a57",
        (*kernel("linux-aarch64.Image"), "-initrd", "{}/linux-aarch64.cpio", "-append", f"console=ttyAMA0 {QUIET}"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run(["make", "--silent", "-C", DOMAINS], check=True, timeout=600)


@contextmanager
def serial_lines(payload: Payload) -> Iterator[Iterator[str]]:
    """Boot `payload` and yield the lines it prints, without their ends; they end when its time is over."""
    with subprocess.Popen(
        payload.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as qemu:
        assert qemu.stdout is not None
        limit = Timer(LIMIT, qemu.kill)
        limit.start()
        try:
            yield (line.rstrip() for line in qemu.stdout)
        finally:
            limit.cancel()
            qemu.kill()


@pytest.mark.parametrize("payload", BARE_METAL.values(), ids=BARE_METAL)
def test_bare_metal_prints_nothing_but_its_heartbeats(payload: Payload) -> None:
    with serial_lines(payload) as lines:
        assert list(islice(lines, 11)) == [f"heartbeat {number}" for number in range(1, 12)]


@pytest.mark.parametrize(("architecture", "payload"), LINUX.items(), ids=LINUX)
def test_linux_says_who_it_is_and_beats(architecture: str, payload: Payload) -> None:
    with serial_lines(payload) as lines:
        who, first, processors, *beats = islice(lines, 5)
    assert who.startswith("Linux ")
    assert f" {architecture} " in who
    assert processors.startswith("processors 0")
    assert [first, *beats] == [f"heartbeat {number}" for number in range(1, 4)]

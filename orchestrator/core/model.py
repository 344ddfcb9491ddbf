"""What a guest is: its definition as its owner wrote it, in values that are valid by construction.

Nothing here knows where a guest runs (that is `core.placement`) or how libvirt spells it (`core.xml`).
Everything is O(size of the definition).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from orchestrator.core.durations import Duration
from orchestrator.core.payloads import PayloadWish


class Architecture(StrEnum):
    """A guest's instruction set, named as ``uname -m`` does inside it."""

    I386 = "i386"
    X86_64 = "x86_64"
    ARMV7L = "armv7l"
    AARCH64 = "aarch64"


class Mode(StrEnum):
    """How a guest holds its cores: from start to stop, or in turns."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class EmulatorThreads(StrEnum):
    """Where QEMU's own threads run: on the guest's cores, or on one more pool core of their own."""

    SHARE = "share"
    ISOLATE = "isolate"


class OnCrash(StrEnum):
    """What follows trouble (`lifecycle.TROUBLE`): the guest is stopped, started anew, or kept for inspection."""

    STOP = "stop"
    RESTART = "restart"
    KEEP = "keep"


class Serial(StrEnum):
    """Whether the guest has a serial port; its output is logged and can be attached to."""

    LOG = "log"
    NONE = "none"


class Watchdog(StrEnum):
    """What an expired watchdog device does to the guest; `none` means no such device."""

    NONE = "none"
    RESET = "reset"
    POWEROFF = "poweroff"
    PAUSE = "pause"


class GuestClock(StrEnum):
    """What a guest's hardware clock does while the guest stands still; `core.xml.cpu.clock_element` tells the rest."""

    STOPS = "stops"
    FOLLOWS = "follows"


class NumaWish(StrEnum):
    """`prefer` one NUMA node where it fits; `strict` refuses anything else."""

    PREFER = "prefer"
    STRICT = "strict"


class SmtWish(StrEnum):
    """Nova's thread policies: siblings together if possible, never a sibling in use, or siblings only."""

    PREFER = "prefer"
    ISOLATE = "isolate"
    REQUIRE = "require"


class DiskFormat(StrEnum):
    """The image formats that a disk may have."""

    RAW = "raw"
    QCOW2 = "qcow2"


class DiskBackend(StrEnum):
    """Who reads and writes a disk's image: the guest's QEMU, or a storage daemon beside it, on the service core."""

    QEMU = "qemu"
    VHOST_USER = "vhost-user"


class NetworkKind(StrEnum):
    """What a guest's network card is plugged into."""

    NONE = "none"
    USER = "user"
    BRIDGE = "bridge"
    NETWORK = "network"


_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{1,3})")


class Size(int):
    """A number of bytes, written with its unit (``"64 MiB"``; KB, MB, GB, TB are decimal as in IEC 80000-13)."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"512 MiB"``; ValueError says what is wrong and what would work."""
        match = _SIZE.fullmatch(text.strip())
        factor = _UNITS.get(match[2].upper()) if match else None
        if match is None or factor is None:
            raise ValueError(f"{text[:40]!r} is not a size; write a number and a unit, like '64 MiB' or '2 GiB'")
        whole, _, part = match[1].partition(".")
        scale = 10 ** len(part)
        count, rest = divmod(int(whole + part) * factor, scale)
        if rest:
            raise ValueError(f"{text[:40]!r} is not a whole number of bytes")
        return cls(count)

    def __str__(self) -> str:
        for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if self >= factor and self % factor == 0:
                return f"{self // factor} {unit}"
        return f"{int(self)} B"

    __repr__ = __str__


MIB, GIB = Size(2**20), Size(2**30)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadBoot:
    """Boot a bare-metal image: multiboot on x86, an ELF or raw image on ARM."""

    payload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBoot:
    """Boot a Linux kernel directly, with an optional initial RAM file system and command line."""

    kernel: str
    initrd: str | None = None
    cmdline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskBoot:
    """Boot from the disk with this target (``vda`` is the first), through `firmware` if given, else the machine's own.

    `firmware` is a path of an image, or ``efi`` for the one that libvirt finds on the host.
    """

    disk: str
    firmware: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareBoot:
    """Start a firmware image alone and let it decide."""

    firmware: str


Boot = PayloadBoot | KernelBoot | DiskBoot | FirmwareBoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A virtio disk. With `overlay`, writes go to a throw-away layer and the image is never changed."""

    path: str
    format: DiskFormat
    readonly: bool = False
    overlay: bool = False
    backend: DiskBackend = DiskBackend.QEMU


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A folder of the host, which the guest mounts by its `tag` (``mount -t virtiofs TAG /mnt``)."""

    path: str
    tag: str
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm:
    """A TPM 2.0. What it keeps is in the folder `state`; without one it is another TPM at each start."""

    state: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A virtio network card; `name` is the bridge or the libvirt network."""

    kind: NetworkKind = NetworkKind.NONE
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRules:
    """How a guest is restarted after trouble: `core.restarts` tells what each of these means."""

    backoff: Duration = Duration.parse("1 s")
    most: Duration = Duration.parse("1 min")
    limit: int = 5
    window: Duration = Duration.parse("10 min")


_GRACE = Duration.parse("10 s")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSpec:
    """One guest definition. `memory` is in bytes; paths are as the guest's host opens them.

    An exclusive guest can be given up to `max_vcpus` while it runs, if that is set, and be brought back to `vcpus`.
    A guest that runs for `heartbeat_limit` of its own time without a new line on its serial port is in trouble.
    """

    name: str
    architecture: Architecture
    vcpus: int
    memory: Size
    boot: Boot
    mode: Mode = Mode.SHARED
    weight: int = 100
    disks: tuple[Disk, ...] = ()
    network: Network = field(default_factory=Network)
    serial: Serial = Serial.LOG
    rng: bool = False
    watchdog: Watchdog = Watchdog.NONE
    panic: bool = False
    emulator: EmulatorThreads = EmulatorThreads.SHARE
    iothreads: int = 0
    numa: NumaWish = NumaWish.PREFER
    smt: SmtWish = SmtWish.PREFER
    hugepages: Size | None = None
    clock: GuestClock = GuestClock.FOLLOWS
    on_crash: OnCrash = OnCrash.STOP
    restart: RestartRules | None = None
    heartbeat_limit: Duration | None = None
    stop_grace: Duration | None = None
    payload: PayloadWish | None = None
    max_vcpus: int | None = None
    tpm: Tpm | None = None
    shares: tuple[Share, ...] = ()

    @property
    def has_vhost_user(self) -> bool:
        """Say whether another process than its QEMU reads and writes the guest's memory (vhost-user)."""
        return bool(self.shares) or any(disk.backend is DiskBackend.VHOST_USER for disk in self.disks)

    @property
    def most_vcpus(self) -> int:
        """Return how many vCPUs the guest can be grown to."""
        return self.max_vcpus or self.vcpus

    @property
    def cores_needed(self) -> int:
        """Return how many pool cores the guest holds while it runs."""
        return self.vcpus + (self.emulator is EmulatorThreads.ISOLATE)

    @property
    def restart_rules(self) -> RestartRules | None:
        """Return how the guest is restarted after trouble; None if it is not."""
        return (self.restart or RestartRules()) if self.on_crash is OnCrash.RESTART else None

    @property
    def grace(self) -> Duration:
        """Return the time to shut down before it is ended by force; a bare-metal payload listens to nobody."""
        if self.stop_grace is not None:
            return self.stop_grace
        return Duration(0) if isinstance(self.boot, PayloadBoot) else _GRACE


GUEST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
GUEST_NAME_IN_WORDS = "1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last"


def disk_target(index: int) -> str:
    """Return the target of the disk at `index` (0-25) in the definition: vda, vdb, ..."""
    return f"vd{chr(ord('a') + index)}"

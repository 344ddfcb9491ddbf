"""The domains whose XML is kept whole in tests/golden/*.xml: every part, every architecture; a name for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.core.arch import TRAITS
from orchestrator.core.model import (
    GIB,
    MIB,
    Architecture,
    Boot,
    Disk,
    DiskBackend,
    DiskBoot,
    DiskFormat,
    EmulatorThreads,
    FirmwareBoot,
    GuestClock,
    GuestSpec,
    KernelBoot,
    Mode,
    Network,
    NetworkKind,
    NumaWish,
    OnCrash,
    PayloadBoot,
    Serial,
    Share,
    Size,
    Tpm,
    Watchdog,
)
from orchestrator.core.payloads import MappedPayload, PayloadMap, PayloadWish
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import Accelerator, Domain, RamFile
from orchestrator.core.xml.memory import with_payload

POOL = Pool(frozenset(range(2, 24)))
DISKS = (
    Disk(path="/srv/images/root.qcow2", format=DiskFormat.QCOW2),
    Disk(path="/srv/images/data.raw", format=DiskFormat.RAW),
    Disk(path="/srv/images/tools.raw", format=DiskFormat.RAW, readonly=True),
    Disk(path="/srv/images/shared.qcow2", format=DiskFormat.QCOW2, overlay=True),
    Disk(path="/srv/images/shared.raw", format=DiskFormat.RAW, overlay=True),
)
SERVED = tuple(replace(disk, backend=DiskBackend.VHOST_USER) for disk in DISKS)
SHARES = (Share(path="/srv/files", tag="files"), Share(path="/srv/tools", tag="tools", readonly=True))
PAYLOAD = PayloadBoot(payload="/srv/payloads/heartbeat.elf")
KERNEL = KernelBoot(kernel="/srv/linux/vmlinuz", initrd="/srv/linux/initrd.img", cmdline="console=ttyS0 quiet")
ODD_PATH = """/srv/a,b=c <d> & "e" 'f' %s é/x"""


def domain(
    architecture: Architecture = Architecture.X86_64,
    boot: Boot = PAYLOAD,
    *,
    accelerator: Accelerator = Accelerator.TCG,
    nodes: tuple[int, ...] = (),
    held: tuple[int, ...] = (),
    **wishes: Any,
) -> Domain:
    """Return a guest with these wishes, placed on the cores from 2 on; its run directory ends with its name."""
    plain = GuestSpec(name="guest", architecture=architecture, vcpus=2, memory=Size(64 * MIB), boot=boot)
    spec = replace(plain, **wishes)
    cores = tuple(range(2, 2 + spec.cores_needed))
    isolated = spec.emulator is EmulatorThreads.ISOLATE
    return Domain(
        spec=spec,
        placement=Placement(
            pool=POOL,
            vcpus=cores[: spec.vcpus],
            emulator=cores[spec.vcpus :] if isolated else cores,
            held=held,
            nodes=nodes,
        ),
        accelerator=accelerator,
        owner="alice",
        specification=f'{{"name":"{spec.name}"}}',
        emulator=f"/usr/bin/{TRAITS[architecture].emulator}",
        directory=f"/run/orchestrator/guests/{spec.name}",
        uuid="3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4a",
    )


def everything(architecture: Architecture) -> Domain:
    """Return a guest with every device and wish at once that its architecture has."""
    return domain(
        architecture,
        KERNEL,
        disks=DISKS,
        iothreads=2,
        network=Network(kind=NetworkKind.USER),
        rng=True,
        watchdog=Watchdog.RESET,
        panic=TRAITS[architecture].panic_model is not None,
        emulator=EmulatorThreads.ISOLATE,
        hugepages=Size(2 * MIB),
        nodes=(0,),
        on_crash=OnCrash.KEEP,
    )


def ram_file(architecture: Architecture, *, shared: bool = False) -> Domain:
    return replace(domain(architecture), ram_file=RamFile("/var/lib/orchestrator/ram,1", shared))


def window(architecture: Architecture) -> Domain:
    wish = PayloadWish(map=PayloadMap.WINDOW, digest="0f" * 32)
    guest = domain(architecture)
    stamp = (65024, 4242, 64 * MIB, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790)
    mapped = MappedPayload("0f" * 32, "/var/lib/orchestrator/payload,1", 64 * MIB, stamp)
    return with_payload(replace(guest, spec=replace(guest.spec, payload=wish)), mapped)


def with_shares(guest: Domain) -> Domain:
    return replace(guest, spec=replace(guest.spec, shares=SHARES))


_AARCH64 = Architecture.AARCH64
_DISK = DISKS[:1]
_FIRMWARE = "/usr/share/qemu/bios-256k.bin"

CASES: Mapping[str, Domain] = {
    **{f"payload-{each}": domain(each, vcpus=1) for each in Architecture},
    **{f"everything-{each}": everything(each) for each in Architecture},
    **{f"kvm-{each}": domain(each, KERNEL, accelerator=Accelerator.KVM) for each in Architecture},
    **{f"ram-file-{each}": ram_file(each) for each in Architecture},
    "ram-file-shared": ram_file(Architecture.X86_64, shared=True),
    **{f"window-{each}": window(each) for each in Architecture},
    "boot-kernel-alone": domain(boot=KernelBoot(kernel="/srv/linux/vmlinuz")),
    "boot-disk-bios": domain(boot=DiskBoot(disk="vdb"), disks=DISKS[:2]),
    "boot-disk-efi": domain(boot=DiskBoot(disk="vda", firmware="efi"), disks=_DISK),
    "boot-disk-efi-aarch64": domain(_AARCH64, DiskBoot(disk="vda", firmware="efi"), disks=_DISK),
    "boot-disk-efi-armv7l": domain(Architecture.ARMV7L, DiskBoot(disk="vda", firmware="efi"), disks=_DISK),
    "boot-disk-firmware": domain(boot=DiskBoot(disk="vda", firmware=_FIRMWARE), disks=_DISK),
    "boot-firmware": domain(boot=FirmwareBoot(firmware=_FIRMWARE)),
    "disks": domain(disks=DISKS),
    "disks-iothreads": domain(disks=DISKS, iothreads=2),
    "served-disks": domain(disks=SERVED),
    "served-disk-boots": domain(
        boot=DiskBoot(disk="vda", firmware="efi"), disks=(*SERVED[:1], *DISKS[1:2]), iothreads=1
    ),
    "served-pinned": replace(domain(disks=SERVED), pinned=True),
    "shares": domain(_AARCH64, shares=SHARES),
    "shares-on-huge-pages": domain(shares=SHARES[:1], hugepages=Size(2 * MIB), nodes=(1,)),
    "shares-beside-a-window": with_shares(window(Architecture.X86_64)),
    **{f"tpm-{each}": domain(each, tpm=Tpm()) for each in Architecture if TRAITS[each].tpm_model},
    "network-user": domain(network=Network(kind=NetworkKind.USER)),
    "network-bridge": domain(network=Network(kind=NetworkKind.BRIDGE, name="br0")),
    "network-libvirt": domain(network=Network(kind=NetworkKind.NETWORK, name="default")),
    "serial-none": domain(serial=Serial.NONE),
    "rng": domain(rng=True),
    **{f"watchdog-{each}": domain(watchdog=each) for each in Watchdog if each is not Watchdog.NONE},
    "panic": domain(panic=True),
    "emulator-isolated": domain(emulator=EmulatorThreads.ISOLATE, iothreads=1),
    "vcpus-that-grow": domain(boot=KERNEL, mode=Mode.EXCLUSIVE, vcpus=2, max_vcpus=5),
    "smt-siblings-held": domain(held=(2, 3, 4, 5)),
    "numa-strict": domain(numa=NumaWish.STRICT, nodes=(1,)),
    "numa-preferred": domain(nodes=(1,)),
    "numa-interleaved": domain(nodes=(0, 1)),
    "hugepages": domain(hugepages=Size(GIB), memory=Size(2 * GIB)),
    "hugepages-numa-strict": domain(hugepages=Size(2 * MIB), numa=NumaWish.STRICT, nodes=(1,)),
    **{f"on-crash-{each}": domain(on_crash=each) for each in OnCrash if each is not OnCrash.STOP},
    **{f"clock-stops-{each}": domain(each, vcpus=1, clock=GuestClock.STOPS) for each in Architecture},
    "clock-stops-kvm": domain(boot=KERNEL, accelerator=Accelerator.KVM, clock=GuestClock.STOPS),
    "pinned-kernel-and-disks": replace(domain(boot=KERNEL, disks=DISKS), pinned=True),
    "pinned-payload": replace(domain(boot=PayloadBoot(payload="/home/al/a, ,b=/etc/shadow")), pinned=True),
    "pinned-firmware": replace(domain(boot=FirmwareBoot(firmware="/home/al/fw")), pinned=True),
    "by-policy": replace(domain(), by_policy=True),
    "growing-disks": replace(domain(disks=DISKS), disk=5 * GIB),
    "memory-merged": replace(domain(), merged=True),
    "memory-bounded": replace(domain(), bounded=True),
    "memory-bounded-kvm": replace(domain(accelerator=Accelerator.KVM), bounded=True),
    "enclosed": replace(domain(), enclosed=True),
    "many-vcpus-aarch64": domain(_AARCH64, vcpus=16),
    "many-vcpus-aarch64-kvm": domain(_AARCH64, vcpus=16, accelerator=Accelerator.KVM),
    "odd-characters": replace(
        domain(boot=PayloadBoot(payload=ODD_PATH), disks=(Disk(path=ODD_PATH, format=DiskFormat.RAW, overlay=True),)),
        owner="o'brien & <sons>",
        specification='{"cmdline":"a < b && c > \\"d\\""}',
        directory=f"/run/{ODD_PATH}",
    ),
}

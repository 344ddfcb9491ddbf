"""What differs between the guest architectures: names, machines, processors, limits. A table, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.core.model import GIB, MIB, Architecture, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureTraits:
    """How one architecture is run.

    `libvirt` is libvirt's name for it, `emulator` the QEMU program, `tcg_cpu` the processor it is given under
    emulation, `kvm_hosts` the host machines (``uname -m``) whose KVM runs it, `most_memory` what its
    machine can address, `panic_model` libvirt's panic device on it and `tpm_model` its TPM (None where libvirt 9.0 has
    none: it plugs an ISA device into QEMU's 32-bit ARM machine, which has no such bus).
    """

    libvirt: str
    emulator: str
    machine: str
    tcg_cpu: str
    kvm_hosts: frozenset[str]
    most_vcpus: int
    least_memory: Size
    most_memory: Size
    panic_model: str | None
    tpm_model: str | None

    @property
    def is_x86(self) -> bool:
        """Say whether the machine is a PC."""
        return self.machine == "pc"


TRAITS: Mapping[Architecture, ArchitectureTraits] = MappingProxyType(
    {
        Architecture.I386: ArchitectureTraits(
            libvirt="i686",
            emulator="qemu-system-i386",
            machine="pc",
            tcg_cpu="qemu32",
            kvm_hosts=frozenset({"x86_64", "i686"}),
            most_vcpus=64,
            least_memory=Size(1 * MIB),
            most_memory=Size(3 * GIB),
            panic_model="isa",
            tpm_model="tpm-tis",
        ),
        Architecture.X86_64: ArchitectureTraits(
            libvirt="x86_64",
            emulator="qemu-system-x86_64",
            machine="pc",
            tcg_cpu="qemu64",
            kvm_hosts=frozenset({"x86_64"}),
            most_vcpus=255,
            least_memory=Size(1 * MIB),
            most_memory=Size(1008 * GIB),  # its 40 address bits, less what QEMU keeps for devices
            panic_model="isa",
            tpm_model="tpm-tis",
        ),
        Architecture.ARMV7L: ArchitectureTraits(
            libvirt="armv7l",
            emulator="qemu-system-arm",
            machine="virt",
            tcg_cpu="cortex-a15",
            kvm_hosts=frozenset({"armv7l"}),
            most_vcpus=8,
            least_memory=Size(4 * MIB),
            most_memory=Size(3 * GIB),
            panic_model=None,
            tpm_model=None,
        ),
        Architecture.AARCH64: ArchitectureTraits(
            libvirt="aarch64",
            emulator="qemu-system-aarch64",
            machine="virt",
            tcg_cpu="cortex-a57",
            kvm_hosts=frozenset({"aarch64"}),
            most_vcpus=255,
            least_memory=Size(4 * MIB),
            most_memory=Size(255 * GIB),
            panic_model=None,
            tpm_model="tpm-tis",
        ),
    }
)

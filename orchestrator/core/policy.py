"""What the owner of a host decides about it: the values of a policy file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.cpulist import parse_cpulist


class AcceleratorWish(StrEnum):
    """`auto` is KVM where a guest has been seen to run in it, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePolicy:
    """`reserved` are cores kept from guests beside 0 and 1, as a CPU list (``6-7``)."""

    reserved: str = ""

    def reserved_cores(self) -> frozenset[int]:
        """Return the cores of `reserved`; UsageError if it is no CPU list."""
        return parse_cpulist(self.reserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorPolicy:
    """`connect` is ``embed`` or a libvirt URI."""

    connect: str = "embed"
    accelerator: AcceleratorWish = AcceleratorWish.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. The defaults are those of policies/default.toml, which a test holds together."""

    cores: CorePolicy = field(default_factory=CorePolicy)
    hypervisor: HypervisorPolicy = field(default_factory=HypervisorPolicy)

"""What the owner of a host decides about it: the values of a policy file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.durations import Duration
from orchestrator.core.model import Size
from orchestrator.core.sharing import Rules


class AcceleratorWish(StrEnum):
    """`auto` is KVM where a guest has been seen to run in it, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePolicy:
    """`reserved` are cores kept from guests beside 0 and 1, as a CPU list (``6-7``).

    `shared_floor` is how many pool cores exclusive guests always leave to shared ones. With `split_cores` the
    threads of a physical core may go to guests of different owners.
    """

    reserved: str = ""
    shared_floor: int = 0
    split_cores: bool = False

    def reserved_cores(self) -> frozenset[int]:
        """Return the cores of `reserved`; UsageError if it is no CPU list."""
        return parse_cpulist(self.reserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorPolicy:
    """`connect` is ``embed`` or a libvirt URI."""

    connect: str = "embed"
    accelerator: AcceleratorWish = AcceleratorWish.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """The times of shared guests' turns; what each means is told at `sharing.Rules`.

    A guest that has not confirmed a stop, or that it goes on, within `confirm` is quarantined: its cores stay locked,
    it is frozen, and after `grace` it is killed.
    """

    slice: Duration = Duration.parse("100 ms")
    minimum_run: Duration = Duration.parse("20 ms")
    handover: Duration = Duration.parse("10 ms")
    patience: Duration = Duration.parse("1 s")
    confirm: Duration = Duration.parse("2 s")
    grace: Duration = Duration.parse("5 s")

    def rules(self) -> Rules:
        """Return the times as the rotation takes them. Raises UsageError if they do not go together."""
        return Rules(slice=self.slice, minimum=self.minimum_run, handover=self.handover, patience=self.patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """`serial_limit` is how much of what each guest's serial port prints is kept, in bytes: the last of it."""

    serial_limit: Size = Size.parse("16 MiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. The defaults are those of policies/default.toml, which a test holds together."""

    cores: CorePolicy = field(default_factory=CorePolicy)
    rotation: RotationPolicy = field(default_factory=RotationPolicy)
    hypervisor: HypervisorPolicy = field(default_factory=HypervisorPolicy)
    logs: LogPolicy = field(default_factory=LogPolicy)

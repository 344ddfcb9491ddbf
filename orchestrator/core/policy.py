"""What the owner of a host decides about it: the values of a policy file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from orchestrator.core.agenda import DesiredGuest, Reservation, WarmPool, Window
from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.durations import Duration
from orchestrator.core.limits import Everyone, Group, Limits, Quotas, User, Users
from orchestrator.core.model import Architecture, Size
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
    threads of a physical core may go to guests of different owners. `kept` is for how many cores there is always room
    for a user's exclusive guests, whatever others want.
    """

    reserved: str = ""
    shared_floor: int = 0
    split_cores: bool = False
    kept: Mapping[str, int] = field(default_factory=dict)

    def reserved_cores(self) -> frozenset[int]:
        """Return the cores of `reserved`; UsageError if it is no CPU list."""
        return parse_cpulist(self.reserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorPolicy:
    """`connect` is ``embed`` or a libvirt URI. `merge_memory`: whether the kernel may merge guests' equal pages.

    `disk_speed` is how many bytes a second each guest's QEMU may read, and write, of each disk of the host.
    """

    connect: str = "embed"
    accelerator: AcceleratorWish = AcceleratorWish.AUTO
    merge_memory: bool = False
    disk_speed: Size | None = None


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
class GuestDefaults:
    """What a guest definition that does not say so gets; None: it has to say so itself."""

    vcpus: int | None = None
    memory: Size | None = None
    weight: int = 100

    def said(self) -> dict[str, object]:
        """Return the values as a definition would say them."""
        memory = None if self.memory is None else str(self.memory)
        values = {"vcpus": self.vcpus, "memory": memory, "weight": self.weight}
        return {key: value for key, value in values.items() if value is not None}


NO_DEFAULTS = GuestDefaults()
"""Definitions have to say everything that is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The most that one guest may ask for; None: any amount. `disk` is what all its writable disks can grow to."""

    vcpus: int | None = None
    memory: Size | None = None
    disk: Size | None = None
    iothreads: int | None = None
    weight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What guests may be and use.

    `payload_directories` are those in which (or below which) the images, kernels and disks of a guest have to be;
    `networks` are ``none``, ``user``, ``bridge:NAME`` or ``network:NAME``. None: all of them.
    """

    architectures: tuple[Architecture, ...] = tuple(Architecture)
    payload_directories: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Starvation:
    """How others are kept from starving; the wait bound is that of the rotation.

    While somebody waits for cores, nobody keeps more than `exclusive_cores` cores for longer than `exclusive_time`:
    the guest that would is stopped, after a warning. None: no such cap. A guest that has waited `alarm` percent of
    the longest that it may have to wait is told of.
    """

    exclusive_cores: int | None = None
    exclusive_time: Duration = Duration.parse("1 h")
    alarm: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """With `lockdown` no guest is started but by members of the admin group; `reason` is what others are told.

    `consoles` are the only terminals at which the guard obeys, as ``tty1`` or ``ttyS*``; none: every console of this
    machine. After `restart_after` without a heartbeat the guard ends the scheduler and starts it anew; None: never.
    """

    lockdown: bool = False
    reason: str = ""
    consoles: tuple[str, ...] = ()
    restart_after: Duration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. The defaults are those of policies/default.toml, which a test holds together.

    `total` holds for all guests together, `everyone` for each user; `user` and `group` are by name. `window`,
    `reservation` and `guest` are in the order of the file.
    """

    cores: CorePolicy = field(default_factory=CorePolicy)
    rotation: RotationPolicy = field(default_factory=RotationPolicy)
    hypervisor: HypervisorPolicy = field(default_factory=HypervisorPolicy)
    logs: LogPolicy = field(default_factory=LogPolicy)
    defaults: GuestDefaults = field(default_factory=GuestDefaults)
    ceilings: Ceilings = field(default_factory=Ceilings)
    allowed: Allowed = field(default_factory=Allowed)
    quotas: Quotas = field(default_factory=Quotas)
    total: Limits = field(default_factory=Limits)
    everyone: Everyone = field(default_factory=Everyone)
    user: Mapping[str, User] = field(default_factory=dict)
    group: Mapping[str, Group] = field(default_factory=dict)
    users: Users = field(default_factory=Users)
    starvation: Starvation = field(default_factory=Starvation)
    emergency: Emergency = field(default_factory=Emergency)
    window: tuple[Window, ...] = ()
    reservation: tuple[Reservation, ...] = ()
    guest: tuple[DesiredGuest, ...] = ()
    warm: tuple[WarmPool, ...] = ()

    def limits(self, owner: str) -> Limits:
        """Return what holds for one user by himself."""
        own = self.user.get(owner, _NO_USER)
        given = {part.name: getattr(own, part.name) for part in fields(Limits)}
        return Limits(
            **{name: getattr(self.everyone, name) if value is None else value for name, value in given.items()}
        )

    @property
    def counts_time(self) -> bool:
        """Whether guests that run have to be looked after, since there is a limit to how long or how much."""
        parties = (self.total, self.everyone, *self.user.values(), *self.group.values())
        limited = any(each.core_time_per_day or each.pool_share or each.longest_run for each in parties)
        return limited or self.starvation.exclusive_cores is not None

    def groups(self, owner: str) -> tuple[str, ...]:
        """Return the groups of this policy that a user is in, by name."""
        return tuple(sorted(name for name, group in self.group.items() if owner in (group.members or ())))

    def weight(self, owner: str) -> int:
        """Return by what weight a user takes part in the division of core time."""
        own = self.user.get(owner, _NO_USER).weight
        return self.everyone.weight if own is None else own

    def payload_quota(self, owner: str) -> int:
        """Return how many bytes a user may keep in the payload store."""
        own = self.user.get(owner, _NO_USER).payloads
        return int(self.everyone.payloads if own is None else own)

    def priority(self, owner: str) -> int:
        """Return the priority class of a user's guests: his own, else the highest of his groups, else everyone's."""
        own = self.user.get(owner, _NO_USER).priority
        if own is not None:
            return own
        classes = [found for name in self.groups(owner) if (found := self.group[name].priority) is not None]
        return max(classes, default=self.everyone.priority)


_NO_USER = User()

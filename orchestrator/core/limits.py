"""What a policy allows users, groups and everybody together: quotas, shares, and who may not come in at all.

Values only; `core.quota` judges by them. A limit that is not given (None) does not limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.durations import Duration
from orchestrator.core.model import Size


class OverQuota(StrEnum):
    """What becomes of a start beyond a quota: refused, queued until there is room, or the owner's oldest guest ends."""

    REFUSE = "refuse"
    QUEUE = "queue"
    STOP_OLDEST = "stop-oldest"


class OutOfTime(StrEnum):
    """What becomes of guests whose owner has used up a time quota: they get no turns until there is time, or end."""

    THROTTLE = "throttle"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Quotas. Those of a group or of everybody hold for all their guests together.

    `guests` counts all that have a process or are about to, `running` those of them that are not paused. `vcpus`,
    `memory` and `disk` (what writable disks can grow to) are sums over `guests`, `exclusive_cores` are cores kept
    from start to stop. `pool_share` is in percent of the pool's core time within `Quotas.share_window`,
    `core_time_per_day` in core time: two cores for an hour are two hours. Core time is what shared guests run and what
    exclusive ones keep. `longest_run` is how long one guest may be there.
    """

    guests: int | None = None
    running: int | None = None
    vcpus: int | None = None
    exclusive_cores: int | None = None
    memory: Size | None = None
    disk: Size | None = None
    pool_share: int | None = None
    core_time_per_day: Duration | None = None
    starts_per_hour: int | None = None
    longest_run: Duration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Everyone(Limits):
    """What holds for each user, by himself, where ``[user.NAME]`` says nothing.

    Users divide core time by `weight`; guests of a higher `priority` go first. `payloads` is how much each may keep in
    the payload store.
    """

    weight: int = 100
    priority: int = 0
    payloads: Size = Size.parse("4 GiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Limits):
    """What holds for one user, in place of what holds for everyone."""

    weight: int | None = None
    priority: int | None = None
    payloads: Size | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Limits):
    """Limits of all members together; `members` are user names, and those of the host's group of this name if absent.

    `priority` is that of members for whom nothing else is said; the highest of several groups.
    """

    members: tuple[str, ...] | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How quotas are kept. `warn_at` is the part of a time quota, in percent, at which its owner is warned."""

    over: OverQuota = OverQuota.REFUSE
    out_of_time: OutOfTime = OutOfTime.THROTTLE
    warn_at: int = 80
    share_window: Duration = Duration.parse("1 h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """`admin_group` is the host's group whose members may do everything; `banned` tells why a user gets nothing."""

    admin_group: str = "orchestrator"
    banned: Mapping[str, str] = field(default_factory=dict)

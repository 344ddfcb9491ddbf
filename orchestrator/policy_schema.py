"""How a policy is spelled and judged, for policy files and for other files of which one is a part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from orchestrator.core.agenda import DesiredGuest, Overrides, Reservation, WarmPool, Window
from orchestrator.core.durations import Duration
from orchestrator.core.limits import Everyone, Group, Limits, Quotas, User, Users
from orchestrator.core.model import GUEST_NAME, GUEST_NAME_IN_WORDS, Size
from orchestrator.core.policy import (
    Allowed,
    Ceilings,
    CorePolicy,
    GuestDefaults,
    HypervisorPolicy,
    LogPolicy,
    Policy,
    RotationPolicy,
    Starvation,
)
from orchestrator.core.policy_change import FIXED
from orchestrator.core.times import Cron, Moment
from orchestrator.errors import Fault, UsageError
from orchestrator.toml_tables import Check, Schema, shown

MOST_WEIGHT = 10_000
MOST_PRIORITY = 1000
MOST_COUNT = 1000
MOST_WINDOWS = 100

_LEAST_SERIAL = Size.parse("64 KiB")
_LEAST_DISK_SPEED = Size.parse("64 KiB")
_LEAST_SLICE = Duration.parse("1 ms")
_LEAST_SHARE_WINDOW = Duration.parse("1 min")
_LONGEST_WINDOW = Duration.parse("31 d")
_NETWORK = re.compile(r"none|user|(?:bridge|network):[^\s:,]{1,64}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")  # what useradd and adduser let a name be
_MOST_SAID = 200


def _within(key: str, least: int, most: int) -> tuple[tuple[str], Check]:
    def check(value: int | None) -> Iterator[Fault]:
        if value is not None and not least <= value <= most:
            yield Fault(f"{shown(value)} is not possible; it is {least} to {most}", key)

    return (key,), check


def _at_least(key: str, least: int) -> tuple[tuple[str], Check]:
    def check(value: int | None) -> Iterator[Fault]:
        if value is not None and value < least:
            yield Fault(f"{shown(value)} is not possible; it is {least} or more", key)

    return (key,), check


def _some_time(key: str) -> tuple[tuple[str], Check]:
    def check(value: Duration | None) -> Iterator[Fault]:
        if value is not None and not value:
            yield Fault("0 s is not possible; leave the key out for no limit at all", key)

    return (key,), check


def _user_name(key: str) -> tuple[tuple[str], Check]:
    def check(name: str | None) -> Iterator[Fault]:
        if name is not None and not _USER.fullmatch(name):
            yield Fault(f"{shown(name)} is no name of a user or group of a host", key)

    return (key,), check


def _check_reserved(reserved: str) -> Iterator[Fault]:
    try:
        CorePolicy(reserved=reserved).reserved_cores()
    except UsageError as error:
        yield Fault(str(error), "reserved")


def _check_connect(connect: str) -> Iterator[Fault]:
    if connect != "embed" and "://" not in connect:
        yield Fault(
            f"{shown(connect)} is not possible; write 'embed' or a libvirt URI like 'qemu:///system'",
            "connect",
        )


def _check_disk_speed(disk_speed: Size | None) -> Iterator[Fault]:
    if disk_speed is not None and disk_speed < _LEAST_DISK_SPEED:
        why = f"is too slow for a guest to boot; {_LEAST_DISK_SPEED} (a second) is the least"
        yield Fault(f"{disk_speed} {why}", "disk_speed")


def _check_floor(shared_floor: int) -> Iterator[Fault]:
    if shared_floor < 0:
        yield Fault(f"{shown(shared_floor)} is not possible; it is 0 or more cores", "shared_floor")


def _check_cores_kept(kept: Mapping[str, int]) -> Iterator[Fault]:
    for name, cores in kept.items():
        if not _USER.fullmatch(name):
            yield Fault(f"{shown(name)} is no name of a user of a host", f"kept.{name}")
        elif cores < 0:
            yield Fault(f"{cores} is not possible; it is 0 or more cores", f"kept.{name}")


def _check_minimum(slice_: Duration, minimum_run: Duration) -> Iterator[Fault]:
    if slice_ < _LEAST_SLICE:
        yield Fault(f"{slice_} is too short for a turn; {_LEAST_SLICE} is the least", "slice")
    elif not 0 < minimum_run <= slice_:
        yield Fault(
            f"{minimum_run} is not possible; it is more than 0 s and at most the slice, {slice_}", "minimum_run"
        )


def _check_confirm(confirm: Duration) -> Iterator[Fault]:
    if not confirm:
        yield Fault("no guest confirms within 0 s; the default is '2 s'", "confirm")


def _check_serial_limit(serial_limit: Size) -> Iterator[Fault]:
    if serial_limit < _LEAST_SERIAL:
        yield Fault(f"{serial_limit} is too little to be of use; {_LEAST_SERIAL} is the least", "serial_limit")


def _check_architectures(architectures: tuple[str, ...]) -> Iterator[Fault]:
    if not architectures:
        yield Fault("no guest could be started; name at least one", "architectures")


def _check_networks(networks: tuple[str, ...] | None) -> Iterator[Fault]:
    for index, network in enumerate(networks or ()):
        if not _NETWORK.fullmatch(network):
            possible = "none, user, bridge:NAME, network:NAME"
            yield Fault(f"{shown(network)} is no network; possible are {possible}", f"networks[{index}]")


def _check_share_window(share_window: Duration) -> Iterator[Fault]:
    if share_window < _LEAST_SHARE_WINDOW:
        yield Fault(f"{share_window} is too short to count in; {_LEAST_SHARE_WINDOW} is the least", "share_window")


def _check_banned(banned: Mapping[str, str]) -> Iterator[Fault]:
    for name, why in banned.items():
        if not _USER.fullmatch(name):
            yield Fault(f"{shown(name)} is no name of a user of a host", f"banned.{name}")
        if not why.strip() or not why.isprintable() or len(why) > _MOST_SAID:
            yield Fault(f"{shown(why)} is no reason; it is 1 to {_MOST_SAID} printable characters", f"banned.{name}")


def _check_members(members: tuple[str, ...] | None) -> Iterator[Fault]:
    for index, name in enumerate(members or ()):
        if not _USER.fullmatch(name):
            yield Fault(f"{shown(name)} is no name of a user of a host", f"members[{index}]")


def _check_time(cron: Cron | None, at: Moment | None) -> Iterator[Fault]:
    if (cron is None) == (at is None):
        yield Fault(
            'it takes either a cron expression for times that come again, like cron = "0 22 * * *", or '
            'one moment, like at = "2026-12-24 18:00"',
            "cron" if cron else "",
        )


def _check_length(duration: Duration) -> Iterator[Fault]:
    if not 0 < duration <= _LONGEST_WINDOW:
        yield Fault(f"{duration} is not possible; it is more than 0 s and {_LONGEST_WINDOW} at most", "duration")


def _check_set(overrides: Overrides) -> Iterator[Fault]:
    for section, key, why in FIXED:
        if any(path == (section, key) for path, _ in overrides):
            yield Fault(f"no window can set it, since {why}; write it outside of windows", f"set.{section}.{key}")
    for fixed in ("window", "reservation"):
        if any(path[0] == fixed for path, _ in overrides):
            yield Fault(f"a window sets values, and no {fixed} of its own; write it beside the window", f"set.{fixed}")


def _check_definition(definition: str) -> Iterator[Fault]:
    if not definition or not definition.isprintable():
        yield Fault(f"{shown(definition)} is no path of a guest definition", "definition")


def _check_users(user: Mapping[str, User], group: Mapping[str, Group]) -> Iterator[Fault]:
    for kind, names in (("user", user), ("group", group)):
        for name in names:
            if not _USER.fullmatch(name):
                yield Fault(f"{shown(name)} is no name of a {kind} of a host", f"{kind}.{name}")


def _check_template(template: str) -> Iterator[Fault]:
    if not GUEST_NAME.fullmatch(template):
        yield Fault(f"{shown(template)} is not a template's name; that is {GUEST_NAME_IN_WORDS}", "template")


def _check_agenda(window: tuple[Window, ...], reservation: tuple[Reservation, ...]) -> Iterator[Fault]:
    for kind, entries in (("window", window), ("reservation", reservation)):
        yield from _repeated(kind, [entry.name for entry in entries])
        if len(entries) > MOST_WINDOWS:
            yield Fault(f"{len(entries)} of them are more than anybody can follow; {MOST_WINDOWS} at most", kind)


def _repeated(kind: str, names: list[str]) -> Iterable[Fault]:
    counts = Counter(names)
    for index, name in enumerate(names):
        if not name.strip() or not name.isprintable() or len(name) > _MOST_SAID:
            yield Fault(f"{shown(name)} is no name; it is some printable characters", f"{kind}[{index}].name")
        elif names.index(name) != index and counts[name] > 1:
            yield Fault(
                f"there is another {kind} {shown(name)} before; give each its own name", f"{kind}[{index}].name"
            )


_LIMITS = (
    _at_least("guests", 0),
    _at_least("running", 0),
    _at_least("vcpus", 0),
    _at_least("exclusive_cores", 0),
    _within("pool_share", 1, 100),
    _some_time("core_time_per_day"),
    _at_least("starts_per_hour", 0),
    _some_time("longest_run"),
)
_WEIGHT = _within("weight", 1, MOST_WEIGHT)
_PRIORITY = _within("priority", -MOST_PRIORITY, MOST_PRIORITY)
_TIMES = ((("cron", "at"), _check_time), (("duration",), _check_length))

SCHEMA = Schema(
    keys={},
    words={
        Duration: "a duration with its unit, like '100 ms'",
        Size: "a size with its unit, like '16 MiB'",
        Cron: "a cron expression, like '0 22 * * *'",
        Moment: "a day and a time, like '2026-12-24 18:00'",
    },
    checks={
        CorePolicy: (
            (("reserved",), _check_reserved),
            (("shared_floor",), _check_floor),
            (("kept",), _check_cores_kept),
        ),
        RotationPolicy: ((("slice", "minimum_run"), _check_minimum), (("confirm",), _check_confirm)),
        HypervisorPolicy: ((("connect",), _check_connect), (("disk_speed",), _check_disk_speed)),
        LogPolicy: ((("serial_limit",), _check_serial_limit),),
        GuestDefaults: (_at_least("vcpus", 1), _at_least("memory", 1), _WEIGHT),
        Ceilings: (*(_at_least(key, 1) for key in ("vcpus", "memory", "weight")), _at_least("iothreads", 0)),
        Allowed: ((("architectures",), _check_architectures), (("networks",), _check_networks)),
        Quotas: (_within("warn_at", 1, 100), (("share_window",), _check_share_window)),
        Limits: _LIMITS,
        Everyone: (*_LIMITS, _WEIGHT, _PRIORITY),
        User: (*_LIMITS, _WEIGHT, _PRIORITY),
        Group: (*_LIMITS, _PRIORITY, (("members",), _check_members)),
        Users: (_user_name("admin_group"), (("banned",), _check_banned)),
        Starvation: (_at_least("exclusive_cores", 0), _some_time("exclusive_time"), _within("alarm", 1, 100)),
        Window: (*_TIMES, (("set",), _check_set)),
        Reservation: (*_TIMES, _user_name("owner"), _at_least("cores", 1)),
        DesiredGuest: ((("definition",), _check_definition), _within("count", 1, MOST_COUNT), _user_name("owner")),
        WarmPool: ((("template",), _check_template), _within("count", 1, MOST_COUNT), _user_name("owner")),
        Policy: ((("user", "group"), _check_users), (("window", "reservation"), _check_agenda)),
    },
    partials={Overrides: Policy},
)

"""What clients are shown of guests, cores and explanations: values for JSON. Times are seconds from now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.core.explain import Explanation
from orchestrator.core.placement import Refusal
from orchestrator.core.plan import Plan
from orchestrator.engine import Engine, Guest, RunningGuest

NANOSECONDS = 1_000_000_000


class GuestView(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as `ps` shows it. `cores` are those it holds now; `pid` is None while there is no process.

    `serial_lost` is how many bytes of what guests of this name printed since the daemon began could not be kept.
    """

    name: str
    owner: str
    architecture: str
    mode: str
    accelerator: str
    state: str
    cores: tuple[int, ...] = ()
    vcpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    cpu_seconds: float | None = None
    pid: int | None = None
    uuid: str | None = None
    serial_lost: int = 0


class GuestDetails(GuestView, frozen=True, kw_only=True):
    """A guest as `show` does: how it ended, if it has, what was seen of it, and its definition.

    `charged_seconds` is core time from confirmed turns; `drift_seconds` what the kernel counts too much beside it, 0
    while that is within what is normal. `put_back` counts threads that others had moved. `by_policy` is of one that a
    policy run has started.
    """

    ended: str | None = None
    crashed: bool = False
    heartbeats: int = 0
    last_line: str = ""
    charged_seconds: float = 0.0
    drift_seconds: float = 0.0
    threads: int = 0
    on_reserved: int = 0
    put_back: int = 0
    by_policy: bool = False
    specification: object = None


class CoreView(msgspec.Struct, frozen=True, kw_only=True):
    """A core; `holder` is None where nobody has it, or somebody whose guests the caller does not see (`held`)."""

    id: int
    role: str
    node: int
    holder: str | None
    held: bool


class AcceleratorView(msgspec.Struct, frozen=True):
    """What guests of one architecture are run with, and why."""

    accelerator: str
    why: str


class Started(msgspec.Struct, frozen=True):
    """What a start has brought: the guests, and the accelerator of each architecture."""

    guests: tuple[GuestView, ...]
    accelerators: dict[str, AcceleratorView]


class ReasonView(msgspec.Struct, frozen=True):
    """A rule that refuses: its name, what was wanted of it and what there is; of which limit, if it is a quota."""

    rule: str
    wanted: str
    available: str
    limit: str | None = None


class ForeseenView(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of a guest's start: where it would be launched, or every rule that refuses it."""

    name: str
    owner: str
    architecture: str
    mode: str
    accelerator: str
    cores: tuple[int, ...] = ()
    vcpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    refused_by: tuple[ReasonView, ...] = ()


class Foreseen(msgspec.Struct, frozen=True):
    """What would come of a start, had it not been a dry run; if a guest is `refused`, none would be started."""

    refused: bool
    guests: tuple[ForeseenView, ...]
    accelerators: dict[str, AcceleratorView]


class SettingView(msgspec.Struct, frozen=True):
    """A value of the policy that becomes another one, by its dotted key; None where it is not there."""

    key: str
    before: object
    after: object


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about a guest (``start``, ``stop``, ``replace``, or ``blocked``) and why.

    If it has been tried in vain, `error` says why, and `exit_code` is that of the error's family.
    """

    what: str
    guest: str
    owner: str
    why: str
    error: str = ""
    exit_code: int = 0


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy changes, or has changed: of its values, and of the guests.

    `guests` is how many it wants. `kept` has a line for each value that could not be changed while guests go on.
    """

    file: str
    dry_run: bool
    scheduler: bool
    guests: int
    settings: tuple[SettingView, ...] = ()
    changes: tuple[ChangeView, ...] = ()
    kept: tuple[str, ...] = ()


class HolderView(msgspec.Struct, frozen=True, kw_only=True):
    """Who has cores that a guest waits for; `until` is in how many seconds its turn ends, None if it keeps them."""

    guest: str
    owner: str
    cores: tuple[int, ...]
    until: float | None


class ExplanationView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a guest waits or where it runs: `since` so many seconds, `until` in so many, within `latest` at most."""

    guest: str
    owner: str
    state: str
    reasons: tuple[str, ...]
    cores: tuple[int, ...]
    since: float | None
    until: float | None
    position: int | None
    latest: float | None
    holders: tuple[HolderView, ...]


def view_starting(guest: Guest) -> GuestView:
    """Show a guest that has not been launched yet."""
    return GuestView(
        name=guest.spec.name,
        owner=guest.owner,
        architecture=guest.spec.architecture,
        mode=guest.spec.mode,
        accelerator=guest.accelerator,
        state="starting",
    )


def view_foreseen(guest: Guest, outcome: Plan | Refusal) -> ForeseenView:
    """Show what would come of a guest's start."""
    placement, reasons = (outcome.placement, ()) if isinstance(outcome, Plan) else (None, outcome.reasons)
    return ForeseenView(
        name=guest.spec.name,
        owner=guest.owner,
        architecture=guest.spec.architecture,
        mode=guest.spec.mode,
        accelerator=guest.accelerator,
        cores=() if placement is None else placement.held,
        vcpus=() if placement is None else placement.vcpus,
        emulator=() if placement is None else placement.emulator,
        refused_by=tuple(ReasonView(each.rule, each.wanted, each.available, each.limit) for each in reasons),
    )


def view_guest(guest: RunningGuest, state: str, cores: tuple[int, ...]) -> GuestView:
    """Show a guest that holds these cores now."""
    return GuestView(**_row(guest, state, cores))


def view_details(guest: RunningGuest, state: str, cores: tuple[int, ...], now: int) -> GuestDetails:
    """Show all there is to see of a guest; `now` is in nanoseconds."""
    return GuestDetails(
        **_row(guest, state, cores),
        ended=guest.ended,
        crashed=guest.crashed,
        heartbeats=guest.heartbeats,
        last_line=guest.last_line,
        charged_seconds=round(
            guest.charge.until(now if guest.pid is not None else guest.charge.since) / NANOSECONDS, 2
        ),
        drift_seconds=round(guest.drift / NANOSECONDS, 2),
        threads=len(guest.watch.threads),
        on_reserved=len(guest.watch.offenders),
        put_back=guest.put_back,
        by_policy=guest.domain.by_policy,
        specification=json.loads(guest.domain.specification),
    )


def _row(guest: RunningGuest, state: str, cores: tuple[int, ...]) -> dict[str, Any]:
    domain, lives = guest.domain, guest.pid is not None
    return {
        "name": guest.name,
        "owner": domain.owner,
        "architecture": domain.spec.architecture,
        "mode": domain.spec.mode,
        "accelerator": domain.accelerator,
        "state": state,
        "cores": cores,
        "vcpus": domain.placement.vcpus if lives else (),
        "emulator": domain.placement.emulator if lives else (),
        "cpu_seconds": round(guest.cpu_seconds, 2) if lives else None,
        "pid": guest.pid,
        "uuid": domain.uuid,
        "serial_lost": guest.serial_lost,
    }


def cores_by_holder(holders: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """Return the cores of each holder, ascending."""
    cores: dict[str, list[int]] = {}
    for core, holder in sorted(holders.items()):
        cores.setdefault(holder, []).append(core)
    return {holder: tuple(held) for holder, held in cores.items()}


def view_cores(engine: Engine, shown: frozenset[str]) -> tuple[CoreView, ...]:
    """Show every online core; only these guests are named."""
    holders = engine.holders()
    return tuple(
        CoreView(
            id=cpu.id,
            role=cpu.role,
            node=cpu.node,
            holder=holder if (holder := holders.get(cpu.id)) in shown else None,
            held=cpu.id in holders,
        )
        for cpu in engine.topology.cpus
    )


def view_explanation(explanation: Explanation, now: int) -> ExplanationView:
    """Show an explanation; `now` is in nanoseconds, as the moments in it."""
    return ExplanationView(
        guest=explanation.guest,
        owner=explanation.owner,
        state=explanation.state,
        reasons=explanation.reasons,
        cores=explanation.cores,
        since=None if explanation.since is None else _seconds(now - explanation.since),
        until=_left(explanation.until, now),
        position=explanation.position,
        latest=_left(explanation.latest, now),
        holders=tuple(
            HolderView(guest=each.guest, owner=each.owner, cores=each.cores, until=_left(each.until, now))
            for each in explanation.holders
        ),
    )


def _left(moment: int | None, now: int) -> float | None:
    return None if moment is None else _seconds(moment - now)


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / NANOSECONDS, 3)

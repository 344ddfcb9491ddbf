"""An overview as Prometheus reads it (its text format 0.0.4), written out family by family.

Between two families others get their turn of the loop: with hundreds of guests all of it takes longer than a hand-over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from orchestrator.service.overview import GuestLoad, HandoverLoad, Overview

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GUEST = ("guest", "owner", "architecture", "mode")
_Value = Callable[[GuestLoad], float | None]

_GUEST_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("cpu_seconds", "CPU time of a guest's QEMU, by the kernel.", lambda guest: guest.cpu_seconds),
    ("run_core_seconds", "Core time of a guest's turns, as confirmed.", lambda guest: guest.ran_seconds),
    ("turns", "Turns that a guest has begun.", lambda guest: guest.turns),
    ("waits", "Waits for a turn that have ended.", lambda guest: guest.waits),
    ("wait_seconds", "How long these waits were together.", lambda guest: guest.waited_seconds),
    ("faults", "What went wrong with a guest.", lambda guest: guest.faults),
)
_GUEST_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("memory_bytes", "Resident memory of a guest's QEMU, shared pages too.", lambda guest: guest.memory),
    ("cores", "Cores that a guest holds now.", lambda guest: len(guest.cores)),
    ("share_wanted_cores", "Cores that a guest is due now, by its weight.", lambda guest: guest.wanted),
    ("share_due_cores", "Cores that a guest was due of late, on the average.", lambda guest: guest.due),
    ("share_got_cores", "Cores that a guest had of late, on the average.", lambda guest: guest.got),
    ("waiting_seconds", "For how long a guest has been waiting now.", lambda guest: guest.waiting),
    ("wait_left_seconds", "In how long a guest that waits runs at the latest.", lambda guest: guest.latest),
    ("wait_longest_seconds", "The longest of a guest's waits.", lambda guest: guest.longest_seconds),
    ("wait_bound_ratio", "The part of its bound that the worst wait took; 1: all.", lambda guest: guest.nearest),
)


@dataclass(frozen=True, slots=True)
class _One(Collector):
    family: Metric

    def collect(self) -> Iterator[Metric]:
        yield self.family


async def expose(overview: Overview) -> bytes:
    """Return the text of all families."""
    parts = []
    for family in families(overview):
        parts.append(generate_latest(_One(family)))
        await asyncio.sleep(0)
    return b"".join(parts)


def families(overview: Overview) -> Iterator[Metric]:
    """Yield what there is to tell, family by family."""
    yield from _cores(overview)
    yield from _guests(overview)
    yield from _users(overview)
    yield _handovers(overview.handovers)
    fairness = _gauge("fairness_ratio", "Jain's index of what shared guests got of late of their due; 1: all the same.")
    if overview.fairness is not None:
        fairness.add_metric((), overview.fairness)
    yield fairness
    yield from _daemon(overview)


def _cores(overview: Overview) -> Iterator[Metric]:
    held = _gauge("core_held", "Whether a guest holds the lock of a core.", ("core", "role", "node"))
    since = _gauge("core_held_seconds", "For how long the present holder has had it.", ("core", "role", "node"))
    for core in overview.cores:
        labels = (str(core.id), core.role, str(core.node))
        held.add_metric(labels, float(core.held))
        if core.since is not None:
            since.add_metric(labels, core.since)
    yield held
    yield since


def _guests(overview: Overview) -> Iterator[Metric]:
    states = _gauge("guests", "Guests by their state.", ("state",))
    for state, count in sorted(Counter(guest.state for guest in overview.guests).items()):
        states.add_metric((state,), count)
    yield states
    for name, what, value in _GUEST_COUNTERS:
        yield _of_guests(CounterMetricFamily(f"orchestrator_guest_{name}", what, labels=_GUEST), overview, value)
    for name, what, value in _GUEST_GAUGES:
        yield _of_guests(GaugeMetricFamily(f"orchestrator_guest_{name}", what, labels=_GUEST), overview, value)


def _of_guests(
    family: CounterMetricFamily | GaugeMetricFamily, overview: Overview, value: _Value
) -> CounterMetricFamily | GaugeMetricFamily:
    for guest in overview.guests:
        found = value(guest)
        if found is not None:
            family.add_metric((guest.name, guest.owner, guest.architecture, guest.mode), found)
    return family


def _users(overview: Overview) -> Iterator[Metric]:
    today = _gauge("user_core_seconds_today", "Core time of this day that counts for a user's quotas.", ("user",))
    for user in overview.users:
        today.add_metric((user.user,), user.core_seconds_today)
    yield today
    labels = ("party", "rule", "unit")
    used = _gauge("quota_used", "What a user, a group or all have used of a limit.", labels)
    limit = _gauge("quota_limit", "A limit of the policy.", labels)
    for each in overview.quotas:
        used.add_metric((each.party, each.rule, each.unit), each.used)
        limit.add_metric((each.party, each.rule, each.unit), each.limit)
    yield used
    yield limit


def _handovers(load: HandoverLoad) -> Metric:
    what = "From the confirmed stop of one guest until the next one is confirmed to run on its cores."
    family = HistogramMetricFamily("orchestrator_handover_seconds", what)
    so_far, buckets = 0, []
    for end, count in zip((*map(str, load.seconds), "+Inf"), load.counts, strict=True):
        so_far += count
        buckets.append((end, float(so_far)))
    family.add_metric((), buckets, load.total_seconds)
    return family


def _daemon(overview: Overview) -> Iterator[Metric]:
    daemon = overview.daemon
    for name, what, value in (
        ("daemon_cpu_seconds", "CPU time of the scheduler's process.", daemon.cpu_seconds),
        ("events", "Events that the daemon has told of.", daemon.events),
        ("quarantines", "Guests that did not obey in time.", daemon.quarantined),
        ("drift_repairs", "Times that a guest's threads were put back where they belong.", daemon.repairs),
        ("journal_records", "Records of the journal, since it was begun.", daemon.journal),
        ("records_lost", "Records of the event log and of samples that could not be kept.", daemon.records_lost),
    ):
        yield CounterMetricFamily(f"orchestrator_{name}", what, value=value)
    yield GaugeMetricFamily("orchestrator_daemon_memory_bytes", "Its resident memory.", value=daemon.memory)
    yield GaugeMetricFamily("orchestrator_daemon_uptime_seconds", "Since when it is there.", value=daemon.seconds)
    head = InfoMetricFamily("orchestrator_journal_head", "The hash of the journal's last record.")
    head.add_metric((), {"hash": daemon.journal_head})
    yield head


def _gauge(name: str, what: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"orchestrator_{name}", what, labels=labels)

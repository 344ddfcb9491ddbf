"""Records as a daemon writes them down, of guests that take turns on some cores: told by the scheduler itself.

The scheduler is the real one, on a clock in memory; what it tells goes through the real recorder into a log in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.core.chronicle import BEGAN
from orchestrator.core.discovery import discover
from orchestrator.core.model import Mode
from orchestrator.core.overview import quota_use, wanted
from orchestrator.core.plan import StartGuest
from orchestrator.core.policy import Policy
from orchestrator.core.scheduler import Scheduler
from orchestrator.engine import Guest
from orchestrator.recorder import Recorder
from tests.fakes.chores import FakeChores
from tests.fakes.engine import guest
from tests.fakes.journal import FakeJournal
from tests.fakes.store import FakeStore

S = 10**9
MS = 10**6
START = 1_700_000_000 * S
"""Wall-clock time at which the story begins."""

CONFIRM = 2 * MS
"""How long each order takes."""


def crowd(count: int, owners: int = 3, exclusive: int = 1) -> Iterator[tuple[Guest, str]]:
    """Yield guests and their owners: first exclusive ones, then shared ones of one or two vCPUs."""
    for number in range(count):
        mode = Mode.EXCLUSIVE if number < exclusive else Mode.SHARED
        owner = ("alice", "bob", "carol", "dave")[number % owners]
        made = guest(f"guest-{number + 1:02}", vcpus=1 + (number % 5 == 4), mode=mode)
        yield (
            Guest(
                spec=made.spec,
                specification=made.specification,
                owner=owner,
                emulator=made.emulator,
                accelerator=made.accelerator,
            ),
            owner,
        )


def tell_story(seconds: int, guests: int, cpus: str = "0-5", policy: Policy | None = None) -> FakeChores:
    """Return what is written down of so many seconds."""
    policy, topology = policy or Policy(), discover({"cpu/online": cpus})
    scheduler = Scheduler(topology, policy)
    chores, now = FakeChores(10**9), 0
    recorder = Recorder(FakeJournal(), FakeStore(), chores, lambda: START + now, serial_limit=1)
    recorder.note(BEGAN)
    pending: list[tuple[int, Any]] = []
    for made, owner in crowd(guests):
        plan = scheduler.request(StartGuest(spec=made.spec, owner=owner), now)
        placement = getattr(plan, "placement", None)
        assert placement is not None, plan
        recorder.began(made.placed(placement, "/run/x"))
    sampled = -1
    while now < seconds * S:
        for order in scheduler.orders():
            pending.append((now + CONFIRM, order))
        pending.sort(key=lambda each: each[0])
        due = [pending[0][0]] if pending else []
        event = scheduler.next_event()
        now = max(now, min([*due, *([event] if event is not None else [])], default=now + S))
        while pending and pending[0][0] <= now:
            scheduler.done(pending.pop(0)[1], now)
        scheduler.tick(now)
        for notice in scheduler.notices():
            recorder.tell(notice)
        if now // (10 * S) > sampled:
            sampled = now // (10 * S)
            snapshot = scheduler.snapshot(now)
            due_now = wanted(snapshot)
            told = {
                name: {"owner": known.owner, "architecture": known.spec.architecture, "wanted": due_now[name]}
                for name, known in snapshot.guests.items()
            }
            recorder.sample({"guests": told, "quotas": [list(each) for each in quota_use(snapshot)]})
    return chores

"""A run in the foreground: when it ends, and that nothing is left whatever happens. Time is the fake clock's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

import pytest

from orchestrator.core.model import Mode
from orchestrator.core.windows import effective
from orchestrator.engine import Engine, Guest
from orchestrator.errors import FailedError, PinMismatchError
from orchestrator.foreground import Until, run_in_foreground
from orchestrator.planner import Planner
from orchestrator.policy_file import parse_policy
from orchestrator.quotas import Accounting
from tests.fakes.calendar import FakeCalendar
from tests.fakes.engine import engine_on, guest, launcher_on
from tests.fakes.host import Astray, FakeHost, Faults

NO_AIM = Until()


@dataclass
class Run:
    """One run on a host in memory; `looks` has the moment of each look."""

    host: FakeHost = field(default_factory=FakeHost)
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    looks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine: Engine = engine_on(self.host)
        self.planner: Planner | None = None

    def go(self, *guests: Guest, until: Until = NO_AIM, on_look: Callable[[], None] = lambda: None) -> float:
        """Run, and return how many seconds it took."""

        def look() -> None:
            self.looks.append(self.host.clock.now())
            on_look()

        async def story() -> None:
            await run_in_foreground(
                self.engine,
                guests,
                until=until,
                clock=self.host.clock,
                interrupted=self.interrupted,
                on_look=look,
                planner=self.planner,
            )

        asyncio.run(story())
        assert self.host.domains == {}, "everything is stopped in the end"
        return self.host.clock.now()

    def beats(self, name: str, *moments: float) -> None:
        """Have a guest print a heartbeat at each of these moments."""
        for moment in moments:
            self.host.clock.at(moment, lambda: self.host.prints(name, b"heartbeat 1\n"))

    def ends(self, name: str, moment: float, detail: str = "shut down") -> None:
        self.host.clock.at(moment, lambda: self.host.ends(name, detail))


def test_it_ends_after_its_seconds_and_looks_once_in_each() -> None:
    run = Run()
    assert run.go(guest(), until=Until(seconds=4)) == 4
    assert run.looks == [0, 1, 2, 3, 4]
    seen = run.engine.guests["beat"]
    assert seen.ended == "stopped"
    assert seen.watch.looks == 7  # two proofs at the start, and the five
    assert seen.cpu_seconds == 4  # one vCPU, which is busy all the time in this host


def test_windows_open_and_close_while_it_runs() -> None:
    run, lines, floors = Run(), list[str](), list[int]()
    policy = parse_policy(
        b'[[window]]\nname = "lesson"\nat = "2026-03-02 12:01"\nduration = "1 min"\nchange = "drain"\n'
        b"[window.set.cores]\nshared_floor = 6\n",
        "p.toml",
    )
    calendar = FakeCalendar(run.host.clock, datetime(2026, 3, 2, 12, 0, 58))
    run.engine = Engine(
        run.engine.topology,
        effective(policy, calendar.local()).policy,
        launcher_on(run.host, run.engine.topology),
        run.host.clock,
        accounting=Accounting(calendar),
    )
    run.planner = Planner(run.engine, calendar, policy, lines.append)
    server = guest("server", mode=Mode.EXCLUSIVE)
    run.go(
        server, guest(), until=Until(seconds=70), on_look=lambda: floors.append(run.engine.policy.cores.shared_floor)
    )
    assert [floor for floor, _ in groupby(floors)] == [0, 6, 0]
    assert lines == ["policy: window 'lesson' has begun", "policy: window 'lesson' is over"]
    moments = {name: run.engine.guests[name].ended for name in ("server", "beat")}
    assert moments == {"server": "stopped", "beat": "stopped"}
    assert run.host.trace.index("remove server") < run.host.trace.index("remove beat")


def test_the_seconds_count_from_the_last_start() -> None:
    run = Run(FakeHost(Faults(start_seconds={"slow": 3.0})))
    assert run.go(guest(), guest("slow"), until=Until(seconds=2)) == 5


def test_without_an_aim_it_ends_with_the_last_guest() -> None:
    run = Run()
    run.ends("one", 1.5)
    run.ends("two", 3.5)
    assert run.go(guest("one"), guest("two")) == 4
    assert {seen.ended for seen in run.engine.guests.values()} == {"shut down"}


def test_heartbeats_are_an_aim() -> None:
    run = Run()
    run.beats("one", 0.5, 1.5, 2.5)
    run.beats("two", 0.1, 0.2, 4.5)
    assert run.go(guest("one"), guest("two"), until=Until(heartbeats=3, seconds=60)) == 5
    assert [seen.heartbeats for seen in run.engine.guests.values()] == [3, 3]


def test_missed_heartbeats_are_a_failure_that_names_who_was_short() -> None:
    run = Run()
    run.beats("one", 0.5, 0.6)
    run.beats("two", 0.5)
    with pytest.raises(FailedError, match=r"fewer than 2 heartbeats in time from two \(1\); `orchestrator logs`"):
        run.go(guest("one"), guest("two"), until=Until(heartbeats=2, seconds=3))
    assert run.host.clock.now() == 3
    assert run.host.domains == {}


def test_a_guest_that_ends_short_of_its_heartbeats_ends_the_run() -> None:
    run = Run()
    run.beats("one", 0.5)
    run.ends("one", 1.5, "QEMU failed")
    with pytest.raises(FailedError, match=r"from one \(1\), two \(0\)"):
        run.go(guest("one"), guest("two"), until=Until(heartbeats=2))
    assert run.host.clock.now() == 2
    one, two = run.engine.guests.values()
    assert (one.ended, one.crashed) == ("QEMU failed", True)
    assert (two.ended, two.crashed) == ("stopped", False)


def test_a_guest_that_ends_after_its_heartbeats_is_no_failure() -> None:
    run = Run()
    run.beats("one", 0.5)
    run.ends("one", 0.7)
    run.beats("two", 3.5)
    assert run.go(guest("one"), guest("two"), until=Until(heartbeats=1)) == 4
    assert run.engine.guests["one"].ended == "shut down"


def test_a_guest_that_has_its_heartbeats_gives_the_host_to_the_others() -> None:
    run = Run()
    run.beats("one", 0.5)
    run.beats("two", 3.5)
    assert run.go(guest("one"), guest("two"), until=Until(heartbeats=1)) == 4
    one, two = run.engine.guests.values()
    assert (one.ended, two.ended) == ("stopped", "stopped")
    assert one.cpu_seconds < two.cpu_seconds


def test_an_interruption_ends_it_at_once_and_is_no_failure() -> None:
    run = Run()
    run.host.clock.at(2.5, run.interrupted.set)
    assert run.go(guest(), until=Until(heartbeats=100)) == 2.5
    assert run.engine.guests["beat"].ended == "stopped"


def test_an_interruption_while_guests_start_stops_them_as_soon_as_they_have() -> None:
    run = Run(FakeHost(Faults(start_seconds={"slow": 3.0})))
    run.host.clock.at(1.5, run.interrupted.set)
    assert run.go(guest(), guest("slow")) == 3
    assert {seen.ended for seen in run.engine.guests.values()} == {"stopped"}


def test_one_failing_start_stops_the_others() -> None:
    run = Run(FakeHost(Faults(astray={"bad": Astray("worker", frozenset({1}))}, start_seconds={"slow": 3.0})))
    with pytest.raises(PinMismatchError, match=r"^bad: stopped, thread \d+ \(worker\) may run on 1;"):
        run.go(guest("good"), guest("bad"), guest("slow"), until=Until(seconds=60))
    assert run.host.clock.now() == 3
    assert run.host.domains == {}
    assert {name: seen.ended for name, seen in run.engine.guests.items()} == {"good": "stopped", "slow": "stopped"}


def test_guests_that_run_are_looked_at_while_others_start() -> None:
    run = Run(FakeHost(Faults(start_seconds={"slow": 2.5})))
    run.beats("beat", 0.5)
    beats: list[int] = []
    run.go(
        guest(),
        guest("slow"),
        until=Until(seconds=1),
        on_look=lambda: beats.append(run.engine.guests["beat"].heartbeats),
    )
    assert run.looks == [1, 2, 2.5, 3.5]
    assert beats == [1, 1, 1, 1]


@pytest.mark.parametrize("when", [0.0, 2.0])
def test_a_display_that_breaks_leaves_no_guest_behind(when: float) -> None:
    run = Run(FakeHost(Faults(start_seconds={"slow": 1.5})))

    def show() -> None:
        if run.host.clock.now() >= when:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run.go(guest(), guest("slow"), until=Until(seconds=60), on_look=show)
    assert run.host.domains == {}
    assert sorted(run.engine.guests) == ["beat", "slow"]

"""What goes wrong: schedulers and QEMUs that are killed, a database that is lost. No guest goes with them.

ORCHESTRATOR_KILLS says at how many moments the scheduler is killed.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.mortals import Mortals
from tests.lab.inside.crowd import Crowd
from tests.lab.inside.looking import ROOT, allowed_cores, ask, command, emulators, eventually, guests, heartbeats, says
from tests.lab.inside.servers import POLICY, events
from tests.lab.inside.turns import moment

KILLS = int(os.environ.get("ORCHESTRATOR_KILLS") or 8)
LONGEST_LIFE = 4.0
"""Seconds; two slices and what is between them, so that every moment of a rotation can be met."""

STORE = Path("/var/lib/orchestrator/store.sqlite")
KILLED_QEMUS = 3


@pytest.fixture
def mortals(crowd: Crowd) -> Iterator[Mortals]:
    """Schedulers in place of the crowd's daemon."""
    crowd.serve.end()
    made = Mortals(ROOT / POLICY, {})
    yield made
    made.clear()


def test_killed_qemus_are_noticed_their_cores_given_on_and_their_owner_can_read_why(crowd: Crowd) -> None:
    chance = random.Random(20)
    took = []
    for _ in range(KILLED_QEMUS):
        living = living_guests(crowd)
        runs = sorted(
            n for n, guest in living.items() if guest["state"] == "running" and crowd.members[n] in crowd.shared
        )
        name = chance.choice(runs)
        since, killed = events()[-1]["seq"], time.time()
        os.kill(living[name]["pid"], signal.SIGKILL)
        gone = told(since, f"{name} is known to be gone", guest=name, what="gone")
        took.append(moment(gone) - killed)
        assert gone["why"]
        told(gone["seq"], "its cores are given on", what="turn began", core=living[name]["cores"][0])
        assert guests()[name]["state"] == "stopped"
        assert ask("explain", name)["reasons"][0].startswith("it has ended: ")
        assert ask("show", name)["ended"]
        assert name not in {core["holder"] for core in ask("cores")["cores"]}
    assert crowd.observer.violations == []
    says(f"a killed QEMU was noticed after {', '.join(f'{1000 * seconds:.0f}' for seconds in took)} ms")


def told(since: int, why: str, *, what: str, guest: str = "", core: int | None = None) -> Any:
    """Wait for an event after number `since`, of a guest or on a core if they are given, and return it."""
    found: list[Any] = []

    def is_there() -> bool:
        for event in events(since):
            if event["what"] == what and guest in ("", event["guest"]) and (core is None or core in event["cores"]):
                found.append(event)
        return bool(found)

    eventually(is_there, why)
    return found[0]


def go_on(names: Iterable[str]) -> None:
    beats = {name: heartbeats(name) for name in names}
    eventually(lambda: all(heartbeats(name) > before for name, before in beats.items()), f"{', '.join(beats)} go on")


def test_guests_outlive_the_daemon_and_are_taken_over_by_the_next(crowd: Crowd) -> None:
    before = living_guests(crowd)
    farewell = crowd.serve.end()
    assert all(name in farewell for name in before), farewell
    assert "left running: " in farewell
    check_next(crowd, before)
    crowd.serve.kill()  # without a farewell now
    check_next(crowd, before)
    go_on(before)
    assert crowd.observer.violations == []


def check_next(crowd: Crowd, before: dict[str, Any]) -> None:
    """The next daemon has the same guests."""
    assert f"took over {len(before)} guests in " in crowd.serve.tells("took over")
    assert {name: guest["pid"] for name, guest in guests().items()} == {
        name: guest["pid"] for name, guest in before.items()
    }


def test_the_scheduler_is_killed_at_random_moments_and_nothing_is_lost(crowd: Crowd, mortals: Mortals) -> None:
    chance = random.Random(4)
    living = {name: guest["pid"] for name, guest in living_guests(crowd).items()}
    before, took = crowd.observer.violations, []
    for number in range(KILLS):
        found = mortals.begin()
        took.append(found["seconds"])
        check_found(found, living)
        mortals.go(found)
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        mortals.kill(found)
        assert sorted(emulators()) == sorted(living.values()), f"after kill {number}"
        assert crowd.observer.violations == before, f"after kill {number}"
    check_the_same_answer_without_the_database(mortals, living)
    crowd.servers.running()
    go_on(living)
    took.sort()
    says(
        f"{KILLS} schedulers killed over {len(living)} guests; taken over within median "
        f"{statistics.median(took):.2f} s, at most {took[-1]:.2f} s"
    )


def check_found(found: Any, living: dict[str, int]) -> None:
    """Nobody is lost, each that runs is where the kernel says, and nobody else is there."""
    assert {name: guest["pid"] for name, guest in found["guests"].items()} == living
    assert (found["notes"], found["gone"], found["remembered"]) == ([], [], [])
    assert found["stored"] == sorted(living)
    held: dict[str, set[int]] = {}
    for core, name in found["held"].items():
        held.setdefault(name, set()).add(int(core))
    assert not {0, 1} & {core for cores in held.values() for core in cores}
    for name, cores in held.items():
        if found["guests"][name]["state"] == "running":  # else nobody was, and it is being let run now
            assert threads_may_run_on(living[name]) == cores, name
    for name in living.keys() - held.keys():
        assert found["guests"][name]["state"] == "waiting", name
        assert not computes(living[name]), name


def threads_may_run_on(pid: int) -> set[int]:
    return set().union(*(allowed_cores(task) for task in Path(f"/proc/{pid}/task").iterdir()))


def computes(pid: int) -> bool:
    """Whether a guest's first vCPU has used any time within a while."""
    (task,) = (task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().startswith("CPU 0"))

    def used() -> int:
        return sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))

    before = used()
    time.sleep(0.05)
    return used() > before


def check_the_same_answer_without_the_database(mortals: Mortals, living: dict[str, int]) -> None:
    """The domains' own metadata says all that the store did."""
    first = mortals.begin()
    mortals.kill(first)
    for file in STORE.parent.glob(f"{STORE.name}*"):
        file.unlink()
    second = mortals.begin()
    check_found(second, living)
    mortals.kill(second)
    for each in (first, second):
        del each["pid"], each["seconds"]
    assert second == first


def test_all_are_stopped_and_forgotten_in_the_end(crowd: Crowd) -> None:
    serve = crowd.serve
    living = living_guests(crowd)
    assert ask("stop", "--all") == {"stopped": sorted(living)}
    assert {guest["state"] for guest in guests().values()} == {"stopped"}
    assert emulators() == []
    assert {core["holder"] for core in ask("cores")["cores"]} == {None}
    assert command("rm", *guests()).code == 0
    assert guests() == {}
    assert serve.end() == "ended; no guest runs"


def living_guests(crowd: Crowd) -> dict[str, Any]:
    return {name: guest for name, guest in guests().items() if name in crowd.members and guest["pid"] is not None}

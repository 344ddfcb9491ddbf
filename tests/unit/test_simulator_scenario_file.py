"""Scenario files: what they can say, and every fault with its line. The shipped ones are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.durations import Duration, Spread
from orchestrator.core.model import EmulatorThreads, Mode, NumaWish, SmtWish
from orchestrator.errors import InvalidFileError
from orchestrator.simulator.scenario import (
    Costs,
    Failure,
    FailureKind,
    GuestGroup,
    HostShape,
    Owner,
    Scenario,
    arrivals,
)
from orchestrator.simulator.scenario_file import parse_scenario

SHIPPED = sorted((Path(__file__).parents[2] / "policies" / "scenarios").glob("*.toml"))
POOLS = {"classroom": 14, "flood": 6, "seed": 6, "servers-and-batch": 22, "thousand-cores": 1000}

EVERYTHING = b"""
title = "all of it"
duration = "10 min"
seed = 3
[host]
cpus = 16
nodes = 2
threads = 2
[costs]
start = "1 s"
stop = "1 ms to 2 ms"
repin = "0 s"
resume = "3 ms"
[[owner]]
name = "ann-2"
weight = 50
[[guests]]
name = "g"
owner = "ann"
count = 4
owners = 2
vcpus = 3
mode = "exclusive"
weight = 7
priority = -1
emulator = "isolate"
numa = "strict"
smt = "isolate"
arrive = "5 s"
every = "1 s to 2 s"
stay = "1 min"
[[failure]]
guest = "g-4"
at = "9 s"
kind = "hang"
[policy.cores]
reserved = "7"
[policy.rotation]
slice = "50 ms"
"""

PLAIN = """\
title = "t"
duration = "10 s"
[host]
cpus = 8
[[guests]]
name = "g"
owner = "o"
"""


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        parse_scenario(text.encode(), "s.toml")
    return list(caught.value.lines())


def test_a_scenario_can_say_all_of_this() -> None:
    scenario = parse_scenario(EVERYTHING, "s.toml")
    assert (scenario.title, scenario.duration, scenario.seed) == ("all of it", 600 * 10**9, 3)
    assert scenario.host == HostShape(cpus=16, nodes=2, threads=2)
    assert scenario.costs == Costs(
        start=Spread.parse("1 s"),
        stop=Spread.parse("1 ms to 2 ms"),
        repin=Spread.parse("0 s"),
        resume=Spread.parse("3 ms"),
    )
    assert scenario.owners == (Owner(name="ann-2", weight=50),)
    assert scenario.groups == (
        GuestGroup(
            name="g",
            owner="ann",
            count=4,
            owners=2,
            vcpus=3,
            mode=Mode.EXCLUSIVE,
            weight=7,
            priority=-1,
            emulator=EmulatorThreads.ISOLATE,
            numa=NumaWish.STRICT,
            smt=SmtWish.ISOLATE,
            arrive=Duration.parse("5 s"),
            every=Spread.parse("1 s to 2 s"),
            stay=Spread.parse("1 min"),
        ),
    )
    assert scenario.failures == (Failure(guest="g-4", at=Duration.parse("9 s"), kind=FailureKind.HANG),)
    assert (scenario.policy.cores.reserved, scenario.policy.rotation.slice) == ("7", 50 * 10**6)


def test_what_is_not_said_is_as_the_classes_say() -> None:
    assert parse_scenario(PLAIN.encode(), "s.toml") == Scenario(
        title="t",
        duration=Duration.parse("10 s"),
        host=HostShape(cpus=8),
        groups=(GuestGroup(name="g", owner="o"),),
    )


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('title = "t"', 'title = "\\u0007"', "1: title: '\\x07' is no title; it is 1 to 100 printable characters"),
        ('"10 s"', '"0 s"', "2: duration: nothing happens in no time; write how long to simulate, like '10 min'"),
        ('"10 s"', "10", "2: duration: 10 is not a duration with its unit, like '100 ms'"),
        ("cpus = 8", "cpus = 2", "4: host.cpus: 2 is not possible; it is 3 to 4096"),
        ("cpus = 8", "cpus = 8\nthreads = 9", "5: host.threads: 9 is not possible; it is 1 to 8"),
        (
            "cpus = 8",
            "cpus = 8\nnodes = 3",
            "4: host.cpus: 8 do not make 3 nodes of as many cores with as many threads, 1; write a multiple of 3",
        ),
        (
            "cpus = 8",
            "cpus = 4\nthreads = 2",
            "4: host.cpus: no core is left to guests: 0, 1, their siblings and what the policy reserves are all",
        ),
        ("cpus = 8", "cpus = 8\nnode = 2", "5: host.node: unknown key; did you mean 'nodes'?"),
        ('"o"', '"Ann"', "7: guests[0].owner: 'Ann' is not possible; it is 1 to 48 of a-z, 0-9, '.', '_' and '-', "),
        ('"o"', '"o"\ncount = 0', "8: guests[0].count: 0 is not possible; it is 1 to 1000000"),
        ('"o"', '"o"\nowners = 2', "8: guests[0].owners: 2 owners cannot share 1 guests; write 1 to 1"),
        ('"o"', '"o"\nvcpus = 256', "8: guests[0].vcpus: 256 is not possible; it is 1 to 255"),
        ('"o"', '"o"\nweight = 0', "8: guests[0].weight: 0 is not possible; it is 1 to 10000"),
        ('"o"', '"o"\nstay = "0 s"', "8: guests[0].stay: a guest that leaves as it comes is none; write more than 0 s"),
        ('"o"', '"o"\nevery = "2 s to 1 s"', "8: guests[0].every: '2 s to 1 s' is no span; write the shorter duration"),
        ('"o"', '"o"\nevery = 3', "8: guests[0].every: 3 is not a duration with its unit, like '100 ms', or two, like"),
    ],
)
def test_a_fault_is_told_with_its_line(old: str, new: str, fault: str) -> None:
    (told,) = faults(PLAIN.replace(old, new, 1))
    assert told.startswith(f"s.toml:{fault}")


def test_names_must_be_told_apart() -> None:
    twins = '[[guests]]\nname = "g"\nowner = "o"\n'
    assert faults(PLAIN + twins) == ["s.toml:9: guests[1].name: 'g' is there already"]
    numbered = '[[guests]]\nname = "g-2"\nowner = "o"\n'
    assert parse_scenario((PLAIN + numbered).encode(), "s.toml")
    assert faults(PLAIN.replace('"g"', '"g"\ncount = 2') + numbered) == [
        "s.toml:10: guests[1].name: group 'g' has a guest of this name"
    ]


def test_an_owner_without_guests_is_a_fault_and_so_is_one_named_twice() -> None:
    told = faults(PLAIN + '[[owner]]\nname = "o"\n[[owner]]\nname = "o"\n[[owner]]\nname = "x"\n')
    assert told == [
        "s.toml:11: owner[1].name: 'o' is there already",
        "s.toml:13: owner[2].name: no guest belongs to 'x'",
    ]


@pytest.mark.parametrize(
    ("guest", "known"), [("g-1", True), ("g-3", True), ("g-4", False), ("g", False), ("g-01", False)]
)
def test_a_failure_names_a_guest_that_there_is(guest: str, known: bool) -> None:
    text = PLAIN.replace('"g"', '"g"\ncount = 3') + f'[[failure]]\nguest = "{guest}"\nat = "1 s"\nkind = "crash"\n'
    if known:
        assert parse_scenario(text.encode(), "s.toml").failures[0].guest == guest
    else:
        assert faults(text)[0].startswith(f"s.toml:10: failure[0].guest: there is no guest '{guest}'")


def test_a_failure_happens_before_the_end() -> None:
    told = faults(PLAIN + '[[failure]]\nguest = "g"\nat = "10 s"\nkind = "crash"\n')
    assert told == ["s.toml:10: failure[0].at: 10 s is not before the end, 10 s"]


def test_the_policy_is_judged_as_in_a_file_of_its_own() -> None:
    times, libvirt = faults(PLAIN + '[policy.rotation]\nslice = "1 ms"\n[policy.hypervisor]\nconnect = "x"\n')
    assert times.startswith("s.toml:8: policy.rotation.minimum_run: 20 ms is not possible; ")
    assert libvirt.startswith("s.toml:11: policy.hypervisor.connect: 'x' is not possible; ")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_is_valid_and_everybody_in_it_is_there_some_time(path: Path) -> None:
    scenario = parse_scenario(path.read_bytes(), path.name)
    assert len(scenario.host.topology(scenario.policy).pool) == POOLS[path.stem]
    assert scenario.duration == Duration.parse("10 min")
    present = {arrival.guest.rpartition("-")[0] or arrival.guest for arrival in arrivals(scenario)}
    assert present >= {group.name for group in scenario.groups}


def test_the_shipped_scenarios_are_those_that_are_described() -> None:
    assert [path.stem for path in SHIPPED] == sorted(POOLS)

"""The hand-over bench: what it times, what it counts, and that core 1 is lent to nothing else.

How fast anything is, is not a test's business; that real guests are handed over is shown in tests/functional.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

import orchestrator
from orchestrator.bench.borrowed import Host, lend, may_lend
from orchestrator.bench.driven import Driven, SteppedClock, Turns
from orchestrator.bench.handover import (
    BARE,
    ENGINE,
    WARM_UP,
    WITH_DECISION,
    Extent,
    HandOver,
    HandoverReport,
    Machine,
    Times,
    Use,
    alternate,
    describe,
    ratios,
)
from orchestrator.bench.rivals import BareLoop, with_spare_monitor
from orchestrator.core.discovery import discover
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.policy import Policy
from orchestrator.core.xml.monitor import QEMU_NAMESPACE
from orchestrator.engine import Engine
from orchestrator.errors import FailedError, PinMismatchError, RefusedError
from orchestrator.launch import Launcher
from orchestrator.wiring.stage import WatchedLauncher
from tests.fakes.engine import going, guest, launcher_on
from tests.fakes.host import Astray, FakeHost, Faults
from tests.unit.test_imports import imported, modules

# What is timed.


def test_each_round_hands_over_there_and_back_in_each_way_and_another_way_goes_first() -> None:
    told: list[tuple[str, str, str]] = []

    def way(name: str) -> HandOver:
        async def hand_over(old: str, new: str) -> Mapping[str, float]:
            told.append((name, old, new))
            return {name: len(told) / 1000}

        return hand_over

    rounds: list[int] = []
    ways = [way("x"), way("y")]
    times = asyncio.run(alternate(ways, ("a", "b"), Extent(rounds=2, run=0), rounds.append))
    assert all((old, new) == ("ab"[index % 2], "ba"[index % 2]) for index, (_, old, new) in enumerate(told))
    assert "".join(name for name, _, _ in told[::2]) == "yxxyyx" + "xyyx"
    before = WARM_UP * 4
    assert rounds == [0] * WARM_UP + [1, 2]
    assert times["x"] == Times(handovers=4, median=before + 4.5, p90=before + 8, p99=before + 8)
    assert times["y"] == Times(handovers=4, median=before + 4.5, p90=before + 6, p99=before + 6)


def test_ratios_are_those_of_the_medians() -> None:
    def times(median: float) -> Times:
        return Times(handovers=1, median=median, p90=9, p99=9)

    assert ratios({ENGINE: times(3), BARE: times(2)}, BARE) == {ENGINE: 1.5}


def driven_engine(host: FakeHost) -> tuple[Engine, Driven]:
    topology, clock, rotation = discover({"cpu/online": "0-2"}), SteppedClock(), Policy().rotation
    driven = Driven(clock, (rotation.slice + rotation.handover) / 1e9 + 0.001)
    plain = launcher_on(host, topology)
    launcher = WatchedLauncher(
        topology,
        plain.hypervisor,
        plain.processes,
        plain.monitors,
        plain.files,
        plain.payloads,
        plain.back_ends,
        on_suspend=driven.stopping,
    )
    return Engine(topology, Policy(), launcher, clock, on_notice=driven.note), driven


def test_the_engine_hands_over_when_it_is_driven_and_only_then() -> None:
    host = FakeHost()

    async def story() -> list[dict[str, float]]:
        engine, driven = driven_engine(host)
        async with going(engine):
            await engine.start([guest("a"), guest("b")])
            assert await driven.first() == "a"
            host.trace.clear()
            for _ in range(100):
                await asyncio.sleep(0)
            assert host.trace == []
            return [await driven.hand_over(*turn) for turn in (("a", "b"), ("b", "a"), ("a", "b"))]

    seconds = asyncio.run(story())
    orders = [line for line in host.trace if line.startswith(("stop", "continue"))]
    assert orders == ["stop a", "continue b", "stop b", "continue a", "stop a", "continue b"]
    assert host.clashes == []
    assert all(0 < each[ENGINE] < each[WITH_DECISION] for each in seconds)


def test_a_guest_that_is_lost_ends_the_measurement_with_a_line() -> None:
    host = FakeHost()

    async def story() -> None:
        engine, driven = driven_engine(host)
        async with going(engine):
            await engine.start([guest("a"), guest("b")])
            await driven.first()
            host.ends("b")
            await driven.hand_over("a", "b")

    with pytest.raises(FailedError, match="b: gone while it was being measured"):
        asyncio.run(story())


# What is counted.


def turns(*notices: tuple[Happening, str, int, tuple[int, ...]]) -> Turns:
    taken = Turns()
    for what, name, at, cores in notices:
        taken.note(Notice(what, name, at, cores))
    return taken


def test_only_confirmed_turns_count_and_only_what_of_them_is_between_the_two_moments() -> None:
    taken = turns(
        (Happening.TURN_BEGAN, "a", 10, (2,)),
        (Happening.TURN_ENDED, "a", 30, (2,)),
        (Happening.ENLISTED, "c", 30, ()),
        (Happening.TURN_BEGAN, "wide", 32, (2, 3)),
        (Happening.TURN_ENDED, "wide", 40, (2, 3)),
        (Happening.TURN_BEGAN, "a", 45, (2,)),
    )
    assert taken.used(10, 50) == 20 + 2 * 8 + 5
    assert taken.used(20, 36) == 10 + 2 * 4
    assert taken.used(41, 44) == 0
    assert (taken.begun(10, 50), taken.begun(11, 45), taken.begun(11, 46)) == (3, 1, 2)


def test_the_report_is_plain_json_that_says_what_was_borrowed() -> None:
    times = Times(handovers=400, median=1.0, p90=2.0, p99=3.0)
    use = Use(slice_ms=100, guests=20, cores=(1,), seconds=25, handovers=230, useful=0.98, cpu=0.97)
    machine = Machine(cpu="c", python="3", qemu="7", libvirt="9", accelerator="tcg", realtime=True)
    described = describe(
        HandoverReport(
            machine=machine,
            borrowed_service_core=True,
            cores=(1,),
            ways={ENGINE: times, BARE: times},
            ratios={ENGINE: 1.0},
            uses=(use,),
        )
    )
    assert json.loads(json.dumps(described)) == described
    assert described["borrowed_service_core"] is True
    assert described["ways"] == {
        name: {"handovers": 400, "median": 1.0, "p90": 2.0, "p99": 3.0} for name in (ENGINE, BARE)
    }


# The bare loop.


def qemu(path: str, answers: list[bytes], asked: list[bytes]) -> threading.Thread:
    """Listen like QEMU: greet, then answer each line; what is left goes out in two pieces."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as client, client.makefile("rb") as lines:
            client.sendall(b'{"QMP": {}}\r\n')
            for answer in answers:
                asked.append(lines.readline())
                client.sendall(answer[:7])
                client.sendall(answer[7:])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


RETURN, EVENT = b'{"return": {}}\r\n', b'{"event": "STOP"}\r\n'


def test_the_bare_loop_stops_one_and_then_lets_the_other_run_over_events(tmp_path: Path) -> None:
    asked: dict[str, list[bytes]] = {"a": [], "b": []}
    paths = {name: str(tmp_path / name) for name in asked}
    servers = [qemu(paths[name], [RETURN, EVENT + RETURN], asked[name]) for name in asked]
    loop = BareLoop(paths)
    assert asyncio.run(loop.hand_over("a", "b"))[BARE] > 0
    loop.close()
    for server in servers:
        server.join()
    commands = {name: [json.loads(line)["execute"] for line in lines] for name, lines in asked.items()}
    assert commands == {"a": ["qmp_capabilities", "stop"], "b": ["qmp_capabilities", "cont"]}


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([RETURN, b'{"error": {"class": "GenericError"}}\r\n'], "b'stop' failed: .*GenericError"),
        ([RETURN], "QEMU hung up while it was being measured"),
    ],
)
def test_the_bare_loop_says_what_went_wrong(tmp_path: Path, answers: list[bytes], told: str) -> None:
    path = str(tmp_path / "a")
    server = qemu(path, answers, [])
    loop = BareLoop({"a": path})
    try:
        with pytest.raises((FailedError, ConnectionError), match=f"{told}|reset|pipe"):
            asyncio.run(loop.hand_over("a", "a"))
    finally:
        loop.close()
        server.join()


def test_a_guest_gets_one_more_monitor_and_nothing_else() -> None:
    text = (
        f'<domain xmlns:q="{QEMU_NAMESPACE}"><name>a</name><q:commandline><q:arg value="-x"/></q:commandline></domain>'
    )
    changed = etree.fromstring(with_spare_monitor(text, {"a": "/run/a,b"}))
    values = [each.get("value") for each in changed.iter(f"{{{QEMU_NAMESPACE}}}arg")]
    assert values == [
        "-x",
        "-chardev",
        "socket,id=spare-monitor,path=/run/a,,b,server=on,wait=off",
        "-mon",
        "chardev=spare-monitor,id=spare,mode=control",
    ]
    assert [each.tag for each in changed] == ["name", f"{{{QEMU_NAMESPACE}}}commandline"]


# The borrowed core.


def lent(host: FakeHost) -> Launcher:
    launcher = launcher_on(host, discover({"cpu/online": "0-1"}))
    found = lend(Host(launcher.topology, launcher.hypervisor, launcher.processes))
    return replace(launcher, topology=found.topology, hypervisor=found.hypervisor, processes=found.processes)


def run_lent(host: FakeHost) -> Engine:
    launcher = lent(host)

    async def story() -> Engine:
        engine = Engine(launcher.topology, Policy(), launcher, host.clock)
        async with going(engine):
            await engine.start([guest("a"), guest("b")])
            await host.clock.sleep(1)
        return engine

    return asyncio.run(story())


def test_on_a_borrowed_core_the_engine_runs_as_ever_and_every_thread_is_on_core_1() -> None:
    host = FakeHost()
    engine = run_lent(host)
    assert {
        core for domain in host.domains.values() for thread in domain.threads.values() for core in thread.allowed
    } == {1}
    assert [line for line in host.trace if line.startswith("stop")][:2] == ["stop a", "stop b"]
    assert host.clashes == []
    assert set(engine.topology.pool) == {2}
    assert all(not each.watch.offenders for each in engine.guests.values())


def test_on_a_borrowed_core_a_thread_that_may_run_on_core_0_is_a_stray_as_ever() -> None:
    host = FakeHost(Faults(astray={"a": Astray("CPU 0/TCG", frozenset({0, 1}))}))
    with pytest.raises(PinMismatchError, match="may run on 0,2"):
        run_lent(host)


def test_a_borrowed_core_is_the_only_one_that_can_be_pinned_to() -> None:
    processes = lent(FakeHost()).processes
    for cores in ({0}, {1}, {3}, {1, 2}):
        with pytest.raises(PinMismatchError):
            processes.pin(1, frozenset(cores))


@pytest.mark.parametrize(
    ("online", "present", "lends"),
    [("0-1", "0-1", True), ("0-2", "0-2", False), ("0-1", "0-3", False), ("0", "0-1", False), ("0,2", "0,2", False)],
)
def test_core_1_is_lent_only_where_there_is_no_core_beside_0_and_1(online: str, present: str, lends: bool) -> None:
    host = FakeHost()
    topology = discover({"cpu/online": online, "cpu/present": present})
    launcher = launcher_on(host, topology)
    assert may_lend(topology) is lends
    if not lends:
        with pytest.raises(RefusedError, match="core 1 is lent only where"):
            lend(Host(topology, launcher.hypervisor, launcher.processes))


def test_nothing_but_benchmarks_can_borrow_core_1() -> None:
    known = modules(Path(orchestrator.__file__).parent)
    lender = "orchestrator.bench.borrowed"
    benches = {f"orchestrator.wiring.{name}" for name in ("handover", "starting", "idle", "guard_stage")}
    arrows = {(name, target) for name, path in known.items() for _, target in imported(name, path, known)}
    assert {name for name, target in arrows if target == lender} == {"orchestrator.wiring.handover"}
    users = {name for name, target in arrows if target in benches}
    assert users == {
        f"orchestrator.wiring.{name}"
        for name in ("bench", "bench_all", "guard_bench", "guard_stage", "idle", "starting")
    }

"""Starts: no guest runs an instruction before its threads were read back, and a failed start leaves nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.model import Disk, DiskFormat, EmulatorThreads, Mode
from orchestrator.core.placement import assign
from orchestrator.engine import Engine, Guest, RunningGuest
from orchestrator.errors import FailedError, OutcomeUnknownError, PinMismatchError
from tests.fakes.engine import engine_on, going, guest, launcher_on
from tests.fakes.host import Astray, FakeHost, Faults

ON_CORE_0 = frozenset({0})


def start(host: FakeHost, *guests: Guest) -> Engine:
    engine = engine_on(host)

    async def story() -> None:
        await engine.start(guests)

    asyncio.run(story())
    return engine


def started(host: FakeHost, *guests: Guest) -> RunningGuest:
    return next(iter(start(host, *guests).guests.values()))


def test_threads_are_read_while_the_guest_is_stopped_and_again_once_it_runs() -> None:
    host = FakeHost()
    started(host, guest())
    assert host.trace == [
        "prepare beat",
        "define beat",
        "start paused beat",
        "connect beat",
        "roles beat",
        "read threads beat",
        "continue beat",
        "read threads beat",
    ]


def test_what_was_seen_of_the_threads_is_kept() -> None:
    host = FakeHost()
    running = started(host, guest(vcpus=2, emulator=EmulatorThreads.ISOLATE, iothreads=1))
    assert running.name == "beat"
    assert running.watch.looks == 2
    assert len(running.watch.threads) == 5  # QEMU itself, a worker, two vCPUs, an I/O thread
    assert running.watch.offenders == {}
    assert running.ended is None


def test_overlays_are_made_before_the_start() -> None:
    host = FakeHost()
    disk = Disk(path="/images/root.raw", format=DiskFormat.RAW, overlay=True)
    started(host, guest(disks=(disk, replace(disk, overlay=False))))
    assert host.files["beat"] == {"vda.overlay.qcow2": b"/images/root.raw"}


@pytest.mark.parametrize(
    ("thread", "label"),
    [("CPU 1/TCG", "vCPU 1"), ("qemu-system-x86", ""), ("worker", ""), ("IO iothread1", "")],
)
@pytest.mark.parametrize("runs", [False, True])
def test_a_stray_thread_stops_the_guest_and_is_named(thread: str, label: str, runs: bool) -> None:
    astray = {"beat": Astray(thread, ON_CORE_0)}
    host = FakeHost(Faults(astray_once_running=astray) if runs else Faults(astray=astray))
    with pytest.raises(PinMismatchError, match=rf"^beat: stopped, thread 1\d+ \({thread}.*{label}.*may run on 0;"):
        start(host, guest(vcpus=2, iothreads=1, mode=Mode.EXCLUSIVE))
    assert ("continue beat" in host.trace) is runs
    assert {"hang up beat", "remove beat", "discard beat"} <= set(host.trace)
    assert host.domains == {}


def test_a_vcpu_on_its_sister_cores_is_a_stray() -> None:
    host = FakeHost(Faults(astray={"beat": Astray("CPU 0/TCG", frozenset({2, 3}))}))
    with pytest.raises(PinMismatchError, match=r"may run on 2-3; its placement gives it 2$"):
        start(host, guest(vcpus=2))


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (Faults(prepare=["beat"]), "no overlay could be made"),
        (Faults(start=["beat"]), "the guest does not start"),
        (Faults(no_process=["beat"]), "no process of it can be found in /proc"),
        (Faults(no_monitor=["beat"]), "nobody listens"),
        (Faults(dead_monitor=["beat"]), "'roles' failed"),
        (Faults(hidden_vcpus=["beat"]), r"QEMU has vCPUs \[\], its placement 1"),
        (Faults(dies_on_resume=["beat"]), "its process 1000 ended while it was being started"),
    ],
)
def test_a_failure_at_any_step_leaves_nothing(faults: Faults, message: str) -> None:
    host = FakeHost(faults)
    disk = Disk(path="/images/root.raw", format=DiskFormat.RAW, overlay=True)
    engine = engine_on(host)

    async def story() -> None:
        await engine.start([guest(disks=(disk,), mode=Mode.EXCLUSIVE)])

    with pytest.raises(FailedError, match=message) as failed:
        asyncio.run(story())
    assert failed.value.exit_code == 1
    assert host.domains == {}
    assert host.files == {"beat": {}}
    assert "discard beat" in host.trace
    assert engine.holders() == {}
    if "connect beat" in host.trace:
        assert "hang up beat" in host.trace


def test_what_cannot_be_undone_is_an_unknown_outcome_that_tells_both_reasons() -> None:
    host = FakeHost(Faults(astray={"beat": Astray("worker", ON_CORE_0)}, cannot_be_removed=["beat"]))
    with pytest.raises(OutcomeUnknownError, match=r"\(worker\) may run on 0.*could not be cleared away: .*to stay"):
        start(host, guest())
    assert host.named("beat") is not None
    assert "discard beat" not in host.trace  # the guest may still use its files


def test_a_cancelled_launch_leaves_nothing() -> None:
    host = FakeHost(Faults(start_seconds={"beat": 60.0}))
    topology = discover({"cpu/online": "0-7"})
    placement = assign(guest().spec, [2], topology)

    async def story() -> None:
        launching = asyncio.create_task(launcher_on(host, topology).launch(guest().placed(placement, "/run/beat")))
        await host.clock.sleep(1)
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching

    asyncio.run(story())
    assert host.trace == ["prepare beat", "define beat", "discard beat"]
    assert host.domains == {}


@pytest.mark.parametrize("thread", ["CPU 0/TCG", "worker"])
def test_a_shared_guest_that_strays_in_its_first_turn_is_ended_and_it_is_told_why(thread: str) -> None:
    host = FakeHost(Faults(astray_once_running={"beat": Astray(thread, ON_CORE_0)}))
    engine = engine_on(host)

    async def story() -> None:
        async with going(engine):
            await engine.start([guest()])
            await host.clock.sleep(1)

    asyncio.run(story())
    seen = engine.guests["beat"]
    assert seen.crashed
    assert f"({thread}" in str(seen.ended)
    assert engine.holders() == {}
    assert host.domains == {}


def test_one_failing_start_does_not_disturb_the_others() -> None:
    host = FakeHost(Faults(start=["bad"], start_seconds={"slow": 5.0}))
    engine = engine_on(host)

    async def story() -> None:
        await engine.start([guest("bad"), guest("slow"), guest("good")])

    with pytest.raises(FailedError, match="bad was told to fail"):
        asyncio.run(story())
    assert sorted(engine.guests) == ["good", "slow"]
    assert sorted(domain.name for domain in host.domains.values()) == ["good", "slow"]


def test_a_definition_that_leaves_a_reserved_core_open_is_never_given_to_libvirt() -> None:
    host = FakeHost()
    lax, strict = discover({"cpu/online": "0-7"}), discover({"cpu/online": "0-7"}, [3])
    domain = guest(vcpus=2).placed(assign(guest(vcpus=2).spec, [2, 3], lax), "/run/beat")
    with pytest.raises(PinMismatchError, match=r"beat: not started, its XML leaves a reserved core open: .*3"):
        asyncio.run(launcher_on(host, strict).launch(domain))
    assert host.trace == []

"""The guard beside libvirt's own daemon and guests of it: they are ended while that daemon stands still, too.

The scheduler is a real one, see `mortal`; its guests take turns on the pool, or on core 1 of a host that has none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.core.pool import SERVICE_CORE
from orchestrator.core.topology import Topology
from orchestrator.wiring.site import load_policy, load_topology
from tests.at_console import Guard, Killer, Shell, answer, asking, at, records
from tests.functional.libvirtd import Stage, definitions, staged, told, until
from tests.functional.mortals import folders_in
from tests.troubles import full, no_forks, spinning, stopped

CONSOLES = ("/dev/tty9", "/dev/tty10")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a console, and the system's libvirt")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged(state_size="16m") as made:
        yield made


@pytest.fixture
def variables(stage: Stage) -> dict[str, str]:
    return {**os.environ, **folders_in(stage.directory)}


@pytest.fixture
def guard(stage: Stage, variables: dict[str, str], tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path / "guard.log", environment=variables, within=stage.daemons.entry)
    try:
        try:
            found = answer(at(CONSOLES[1], asking(stage.directory / "run", {"act": "status"})))
        except AssertionError as error:
            pytest.skip(f"there is no {CONSOLES[1]} here: {str(error)[-200:]}")
        if found["code"] != 0:
            pytest.skip(f"from where these tests are run nobody is at a console: {found['lines'][0]}")
        yield made
    finally:
        made.end()


def test_guests_of_libvirtd_are_ended_while_it_stands_still_and_everything_else_goes_wrong(
    guard: Guard, stage: Stage, variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = stage.mortals.begin(*definitions(stage.directory))
    stage.mortals.go(scheduler)
    stage.turns()
    state = stage.directory / "state"
    shell = Shell(CONSOLES[0], variables)
    try:
        kill = Killer(shell, state, {})
        with stage.daemons.stopped("libvirtd"):
            kill("aarch64-1")
            assert "aarch64-1" not in stage.guests()
        assert told(stage, "gone")["guest"] == "aarch64-1"
        stage.turns()
        with stage.daemons.stopped("libvirtd"), stopped(scheduler["pid"]):
            kill("armv7l-1")
        assert told(stage, "gone")["guest"] == "armv7l-1"
        stage.turns()

        with ExitStack() as troubles:
            troubles.enter_context(stage.daemons.stopped("libvirtd"))
            troubles.enter_context(stopped(scheduler["pid"]))
            troubles.enter_context(full(state))
            troubles.enter_context(no_forks(guard.process.pid, shell.pid))
            troubles.enter_context(spinning(cores()))
            # Whose they are is known without libvirt.
            reply = shell("kill --user root --reason all-at-once")
        assert (reply["code"], reply["guests"]) == (0, ["aarch64-2", "armv7l-2"]), reply
        kill.took["all-at-once, two guests by their user"] = reply["took_ns"] / 1e6
        record = records(state)[-1]
        assert (record["kind"], record["body"]["user"]) == ("kill", "root")
        assert [guest["owner"] for guest in record["body"]["guests"]] == ["root", "root"]
        assert stage.guests() == {}
        assert {told(stage, "gone")["guest"] for _ in range(2)} == {"aarch64-2", "armv7l-2"}
        until(lambda: stage.daemons.domains() == [], "libvirt knows it, too")
    finally:
        shell.end()
    stage.mortals.kill(scheduler)
    after = stage.mortals.begin()
    assert (after["guests"], after["held"]) == ({}, {}), "their cores are free"
    stage.mortals.kill(after)
    with capsys.disabled():
        took = ", ".join(f"{what} {milliseconds:.1f}" for what, milliseconds in kill.took.items())
        sys.stdout.write(f"\nfigure: guard: guests of libvirtd, which stands still, ms: {took}\n")


def cores() -> tuple[int, ...]:
    """Return the cores that these guests may have."""
    topology: Topology = load_topology(load_policy(None))
    return tuple(sorted(topology.pool)) or (SERVICE_CORE,)

"""libvirt's own daemon is killed under real guests, and comes back: they take turns meanwhile, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.libvirtd import ARCHITECTURES, Stage, definitions, staged, told, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has the system's libvirt, and can hide its files")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


def test_guests_take_turns_while_libvirtd_is_away_and_nothing_is_lost(stage: Stage) -> None:
    first = stage.mortals.begin(*definitions(stage.directory))
    stage.mortals.go(first)
    began = stage.guests()
    assert sorted(began) == sorted(f"{architecture}-{n}" for architecture in ARCHITECTURES for n in (1, 2))
    assert {Path(f"/proc/{pid}").owner() for pid in began.values()} == {"libvirt-qemu"}
    stage.turns()

    stage.daemons.kill("libvirtd")
    assert "has gone away from qemu:///system: guests go on" in told(stage, "libvirt")["line"]
    stage.turns()
    os.kill(began["aarch64-1"], signal.SIGKILL)  # noticed without it, and given on
    assert told(stage, "gone")["guest"] == "aarch64-1"
    left = {name: pid for name, pid in began.items() if name != "aarch64-1"}
    stage.turns()
    assert stage.guests() == left

    stage.daemons.start("libvirtd")
    assert "is back at qemu:///system" in told(stage, "libvirt")["line"]
    until(lambda: stage.daemons.domains() == sorted(left), "what waited for libvirt has been done")
    stage.turns()
    assert stage.guests() == left

    stage.mortals.kill(first)  # both are killed, and come back
    stage.daemons.kill("libvirtd")
    stage.daemons.start("libvirtd")
    second = stage.mortals.begin()
    assert {name: guest["pid"] for name, guest in second["guests"].items()} == left
    assert (second["notes"], second["gone"], second["stored"]) == ([], [], sorted(left))
    stage.mortals.go(second)
    stage.turns()
    stage.mortals.kill(second)
